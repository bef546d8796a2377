// Runs attention on the emulator as the server would on CUDA: sequences cut into blocks in random
// places of a cache, parts of them queried in one batch. A kernel may touch exactly what it needs:
// of the cache, the slots of keys that some query of the batch sees are registered, and everything
// else holds NaN; of the block tables, the entries of a sequence's own blocks. Outputs and partial
// results hold NaN first.
#ifndef STRUCTATTN_TESTS_SIMT_ATTENTION_BATCH_H_
#define STRUCTATTN_TESTS_SIMT_ATTENTION_BATCH_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"
#include "tests/kernels/attention/paged_batch.h"
#include "tests/simt/simt.h"

namespace structattn {

// Queries [begin, end) of one sequence: of a prompt, or one generated token.
struct EmulatedPart {
  const SequenceTensors* sequence;
  int begin;
  int end;
  bool generated = false;
  // For a generated token: so many of its sequence's first tokens, rounded down to whole blocks,
  // are those of the part before (a branch of the same request). 0 begins a new family.
  int shared_tokens = 0;
};

// How the batch is run. No field may change a bit of the result.
struct EmulatedOptions {
  // The order of the blocks in the cache. If it is even, every run of equal group begins a block in
  // batches where no part shares.
  uint64_t placement_seed = 1;
  uint64_t schedule = 1;  // simt::SetSeed takes it.
};

struct EmulatedResult {
  std::vector<float> output;  // The rows of all parts, [rows, heads, head_dim], widened.
  std::string reports;        // Empty if there are none.
  std::vector<simt::LaunchCounts> launches;
};

// The shape's output_dtype is ignored: it equals kv_dtype on CUDA.
EmulatedResult RunEmulated(const AttentionShape& shape, std::span<const EmulatedPart> parts,
                           const EmulatedOptions& options);

// What the launch over the prompts' tiles has to do, from the definition of visibility alone.
struct TileWork {
  int64_t multiply_accumulates = 0;
  int64_t copies = 0;      // Copies of 16 bytes of keys and values.
  int64_t zero_fills = 0;  // Those for the key ranks that fill up the last key tile.
};
TileWork NeededTileWork(const AttentionShape& shape, std::span<const EmulatedPart> parts);

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_SIMT_ATTENTION_BATCH_H_
