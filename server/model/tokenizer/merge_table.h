// The merges of a BPE vocabulary as one flat hash table: pair of ids -> rank and merged id.
// Filled once by Bpe, then only read; open addressing, at most half full.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_MERGE_TABLE_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_MERGE_TABLE_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace structattn {

struct Merge {
  static constexpr uint32_t kNoRank = UINT32_MAX;
  uint32_t rank = kNoRank;
  int32_t id = -1;
};

class MergeTable {
 public:
  MergeTable() { Reserve(0); }

  // Room for `count` merges; drops what is in the table.
  void Reserve(size_t count) {
    const int bits = std::bit_width(2 * count + 1);
    shift_ = 64 - bits;
    slots_.assign(size_t{1} << bits, Slot{});
  }

  // The latest merge of a pair counts.
  void Set(int32_t left, int32_t right, Merge merge) {
    const uint64_t key = Key(left, right);
    size_t i = Home(key);
    while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = {key, merge};
  }

  Merge Find(int32_t left, int32_t right) const {
    const uint64_t key = Key(left, right);
    for (size_t i = Home(key);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].key == key) return slots_[i].merge;
      if (slots_[i].key == kEmpty) return Merge{};
    }
  }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge;
  };

  static uint64_t Key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  size_t Home(uint64_t key) const {
    key ^= key >> 29;
    return static_cast<size_t>((key * 0x9E3779B97F4A7C15u) >> shift_);
  }

  int shift_ = 63;
  std::vector<Slot> slots_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_MERGE_TABLE_H_
