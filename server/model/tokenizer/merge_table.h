// The merges of a BPE vocabulary: pair of ids -> rank and merged id. Filled once, then only read.
// Text without words asks for ever new pairs, most of which do not merge; so a filter that fits the
// second-level cache answers for most of these, and the table is read for pairs that are in it.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_MERGE_TABLE_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_MERGE_TABLE_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "server/model/tokenizer/hash_filter.h"

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
    slot_shift_ = 64 - bits;
    slots_.assign(size_t{1} << bits, Slot{});
    filter_ = HashFilter(count);
    pairs_of_low_ids_.assign(kLowIds * kLowIdStride, Merge{});
  }

  // The latest merge of a pair counts.
  void Set(int32_t left, int32_t right, Merge merge) {
    if (AreLow(left, right)) {
      pairs_of_low_ids_[LowIndex(left, right)] = merge;
      return;
    }
    const uint64_t key = Key(left, right);
    const uint64_t hash = Hash(key);
    size_t i = hash >> slot_shift_;
    while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = {key, merge};
    filter_.Add(hash);
  }

  // Brings what Find(left, right) will read closer.
  void Prefetch(int32_t left, int32_t right) const {
    const uint64_t hash = Hash(Key(left, right));
    __builtin_prefetch(&slots_[filter_.MayHave(hash) ? hash >> slot_shift_ : 0]);
  }

  Merge Find(int32_t left, int32_t right) const {
    if (AreLow(left, right)) return pairs_of_low_ids_[LowIndex(left, right)];
    const uint64_t key = Key(left, right);
    const uint64_t hash = Hash(key);
    if (!filter_.MayHave(hash)) return Merge{};
    for (size_t i = hash >> slot_shift_;; i = (i + 1) & (slots_.size() - 1)) {
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

  // The bytes of a byte-level vocabulary are among its first tokens, and every text begins with
  // pairs of them: these have a plain table.
  static constexpr int32_t kLowIds = 512;
  static constexpr size_t kLowIdStride = kLowIds + 8;  // No power of two: not all in one set.
  static bool AreLow(int32_t left, int32_t right) {
    return static_cast<uint32_t>(left | right) < uint32_t{kLowIds};
  }
  static size_t LowIndex(int32_t left, int32_t right) {
    return static_cast<size_t>(left) * kLowIdStride + static_cast<size_t>(right);
  }

  static uint64_t Key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  static uint64_t Hash(uint64_t key) {
    key ^= key >> 29;
    return key * 0x9E3779B97F4A7C15u;
  }
  int slot_shift_ = 63;
  std::vector<Merge> pairs_of_low_ids_;
  std::vector<Slot> slots_;
  HashFilter filter_{0};
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_MERGE_TABLE_H_
