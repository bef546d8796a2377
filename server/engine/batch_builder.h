// Turns the chunks of a step into the ragged batch that the decoder runs. Decides nothing, copies
// no keys or values.
#ifndef STRUCTATTN_SERVER_ENGINE_BATCH_BUILDER_H_
#define STRUCTATTN_SERVER_ENGINE_BATCH_BUILDER_H_

#include <cstdint>
#include <span>

#include "server/engine/task/sequence.h"
#include "server/model/decoder.h"

namespace structattn::engine {

// Tokens of a sequence: at least one range, ascending; the keys of all tokens before and between
// them are in KV memory.
struct SequenceChunk {
  Sequence* sequence;
  std::span<const TokenRange> ranges;
};

// Replaces the contents of `batch`, keeping its memory. Logits are asked for the rows of the tokens
// that LogitTokens names, in the order of the chunks. The work-list is cut as
// `tiling` says: where generated tokens are split over keys, they go to its decode tiles, each a
// family of its own, and the tiles of the prompts begin with those that see most keys.
void BuildBatch(std::span<const SequenceChunk> chunks, const Tiling& tiling, StepBatch* batch);

// The chunk's tokens whose logits are read: all that remain before its end, since what
// was skipped on the way there was not.
std::span<const int32_t> LogitTokens(const SequenceChunk& chunk);

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_BATCH_BUILDER_H_
