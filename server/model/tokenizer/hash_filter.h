// Tells of most hashes that are not in a set that they are not, at the cost of one look into memory
// that is small enough to stay in the cache (a Bloom filter of two bits in one word). Never wrong
// when it says no.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_HASH_FILTER_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_HASH_FILTER_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace structattn {

class HashFilter {
 public:
  // Room for `count` hashes: of absent hashes one in 14 or fewer looks present.
  explicit HashFilter(size_t count)
      : word_shift_(64 - std::bit_width(count / kHashesPerWord)),
        words_((size_t{1} << (64 - word_shift_)) + 1) {}

  void Add(uint64_t hash) { words_[Word(hash)] |= Bits(hash); }
  bool MayHave(uint64_t hash) const { return (~words_[Word(hash)] & Bits(hash)) == 0; }

 private:
  static constexpr size_t kHashesPerWord = 10;  // At most; at least half of it.

  // The highest bits of the hash choose the word; the bits in it are further down.
  size_t Word(uint64_t hash) const { return word_shift_ == 64 ? 0 : hash >> word_shift_; }
  static uint64_t Bits(uint64_t hash) {
    return uint64_t{1} << (hash >> 32 & 63) | uint64_t{1} << (hash >> 26 & 63);
  }

  int word_shift_;
  std::vector<uint64_t> words_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_HASH_FILTER_H_
