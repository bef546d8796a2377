// Where the tokens of one sequence lie in its KV memory. Every run of equal group starts at a
// multiple of the alignment, so that with the block size as alignment a block holds tokens of one
// run only and can be shared whole. A placement never holds block ids.
#ifndef STRUCTATTN_KERNELS_ATTENTION_PLACEMENT_H_
#define STRUCTATTN_KERNELS_ATTENTION_PLACEMENT_H_

#include <cstdint>
#include <vector>

#include "kernels/attention/structure.h"

namespace structattn {

// A slot is a place in the sequence's padded KV memory, and slot / block_size is the entry of its
// block table. Slots grow with token indices; less than one alignment per run stays empty.
class Placement {
 public:
  // With alignment 1, slot and token index are the same.
  explicit Placement(int32_t alignment = 1);

  // Takes in the runs that have begun since the last call. `structure` is always the same one.
  void Extend(const Structure& structure);

  int32_t alignment() const { return alignment_; }

  // The slot of the first token of structure.runs()[run].
  int32_t RunSlot(size_t run) const { return runs_[run].slot; }

  // The slot of a token, in O(log runs).
  int32_t SlotOf(int32_t token) const;

  // The slots that a sequence of `tokens` tokens takes, in O(log runs).
  int32_t SlotsOf(int32_t tokens) const { return tokens == 0 ? 0 : SlotOf(tokens - 1) + 1; }

 private:
  struct RunStart {
    int32_t token;
    int32_t slot;
  };

  int32_t alignment_;
  std::vector<RunStart> runs_;
};

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ATTENTION_PLACEMENT_H_
