// Where the tokens of one sequence lie in its KV memory: every run of equal group starts at a
// multiple of the alignment, so that with the block size as alignment a block holds tokens of one
// run only and can be shared whole.
// Kept by VisibleIntervals; read by server/engine. Knows no block ids.
#ifndef STRUCTATTN_KERNELS_ATTENTION_PLACEMENT_H_
#define STRUCTATTN_KERNELS_ATTENTION_PLACEMENT_H_

#include <cstdint>
#include <vector>

#include "kernels/attention/structure.h"

namespace structattn {

// A slot is a place in the sequence's padded KV memory: slot / block_size is the entry of its block
// table. Slots grow with token indices; less than one alignment per run stays empty.
class Placement {
 public:
  // With alignment 1, slot and token index are the same.
  explicit Placement(int32_t alignment = 1);

  // Takes in runs of `structure` begun since the last call: always the same growing structure.
  void Extend(const Structure& structure);

  int32_t alignment() const { return alignment_; }

  // Slot of the first token of a run, by its place in structure.runs().
  int32_t RunSlot(size_t run) const { return runs_[run].slot; }

  // Slot of a token. O(log runs).
  int32_t SlotOf(int32_t token) const;

  // Slots up to the end of `tokens` tokens: of a sequence that ends there. O(log runs).
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
