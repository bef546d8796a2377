// Turns the chunks of a step into the ragged batch that the decoder runs.
// Called once per step by server/engine/serving_loop. Decides nothing, copies no keys or values.
#ifndef STRUCTATTN_SERVER_ENGINE_BATCH_BUILDER_H_
#define STRUCTATTN_SERVER_ENGINE_BATCH_BUILDER_H_

#include <cstdint>
#include <span>

#include "server/engine/sequence.h"
#include "server/model/decoder.h"

namespace structattn {

// The next `tokens` tokens of a sequence, from its first token not computed on.
struct SequenceChunk {
  const Sequence* sequence;
  int32_t tokens;
};

// Replaces the contents of `batch`, keeping its memory. Logits are asked for the last row of each
// chunk that reaches the end of its sequence, in the order of the chunks. The work-list is cut as
// `tiling` says: where generated tokens are split over keys, they go to its generated tiles, each a
// family of its own, and the tiles of the prompts begin with those that see most keys.
void BuildBatch(std::span<const SequenceChunk> chunks, int32_t block_size, const Tiling& tiling,
                StepBatch* batch);

// Whether the chunk ends with the token that the next one is predicted from.
inline bool ReachesEnd(const SequenceChunk& chunk) {
  return chunk.sequence->computed() + chunk.tokens == chunk.sequence->size();
}

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_ENGINE_BATCH_BUILDER_H_
