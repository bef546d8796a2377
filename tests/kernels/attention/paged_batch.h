// Runs the CPU kernel as the server would: sequences cut into blocks in random places of a cache,
// parts of them queried in one batch. Everything that must not be read or must be written holds NaN
// first: blocks without an owner, slots of keys that no query of the batch sees, the output.
#ifndef STRUCTATTN_TESTS_KERNELS_ATTENTION_PAGED_BATCH_H_
#define STRUCTATTN_TESTS_KERNELS_ATTENTION_PAGED_BATCH_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "kernels/attention/attention_cpu.h"
#include "tests/kernels/attention/random_structure.h"
#include "tests/reference/attention.h"

namespace structattn {

struct AttentionShape {
  DType kv_dtype = DType::kFloat32;
  DType output_dtype = DType::kFloat32;
  int block_size = 32;
  int kv_heads = 2;
  int ratio = 2;  // The number of query heads of one KV head.
  int head_dim = 64;

  int heads() const { return kv_heads * ratio; }
  HeadShape Heads() const;
};

// Normal queries, keys and values, the latter two rounded to the cache's type.
SequenceTensors RandomSequence(Random& random, const AttentionShape& shape, Structure structure);

// Queries [begin, end) of one sequence.
struct Part {
  const SequenceTensors* sequence;
  int begin;
  int end;
};

// How the batch is run. No field but the kernel may change a bit of the result.
struct RunOptions {
  // The order of the blocks in the cache. If it is even, every run of equal group begins a block.
  uint64_t placement_seed = 1;
  int threads = 1;
  int tile_rows = kCpuTileRows;
  std::optional<const AttentionKernel*> kernel = std::nullopt;  // Absent: the CPU's best.
  std::function<void(WorkList*)> tamper = nullptr;              // Spoils the list first.
};

// The output rows of all parts, [rows, heads, head_dim], widened to float.
std::vector<float> RunBatch(const AttentionShape& shape, std::span<const Part> parts,
                            const RunOptions& options);

// True iff both hold the same bits.
bool SameBits(std::span<const float> a, std::span<const float> b);

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_KERNELS_ATTENTION_PAGED_BATCH_H_
