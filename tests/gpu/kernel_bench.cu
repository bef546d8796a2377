// Times every CUDA op on the GPU at hand and prints rate, % of the tensor cores' peak and % of the
// memory's bandwidth. tests/gpu/run.sh runs it after the tests have shown that the answers are
// right; it checks none itself. It was written without a GPU at hand, and has never run.
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/activation/silu_mul.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/structure.h"
#include "kernels/attention/work_list.h"
#include "kernels/embedding/embedding.h"
#include "kernels/linear/linear.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/rope/rope_kv_write.h"
#include "kernels/sampling/pick_tokens.h"
#include "tests/gpu/gpu_timer.h"

namespace structattn {
namespace {

constexpr KernelContext kContext = {.device = DeviceKind::kCuda};
constexpr int kBlockSize = 32;

struct Work {
  double flops = 0.0;
  double bytes = 0.0;  // So many must cross the memory bus at least once.
};

void Print(const std::string& name, double seconds, const Work& work) {
  const Peak peak = PeakOfDevice();
  std::printf("%-44s %9.1f us  %7.1f TFLOP/s (%5.1f %% of peak)  %7.1f GB/s (%5.1f %%)\n",
              name.c_str(), seconds * 1e6, work.flops / seconds * 1e-12,
              100 * work.flops / seconds / peak.flops, work.bytes / seconds * 1e-9,
              100 * work.bytes / seconds / peak.bytes_per_s);
}

std::vector<float> RandomFloats(size_t count) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(random);
  return values;
}

std::vector<Bfloat16> RandomBfloats(size_t count) {
  std::vector<Bfloat16> values;
  values.reserve(count);
  for (float value : RandomFloats(count)) values.push_back(FromFloat<Bfloat16>(value));
  return values;
}

// ---- Attention.

struct AttentionCase {
  std::string name;
  RulePreset rule;
  std::vector<int> groups;  // The groups of one sequence's tokens.
  int sequences;
  int kv_heads;
  int ratio;
  int head_dim;
  bool generated;  // Whether only the last token of each sequence is queried.
};

// `context` tokens of group 0, then `questions` of `question_tokens` each, then a cue of 16.
std::vector<int> Groups(int context, int questions, int question_tokens) {
  std::vector<int> groups(context, 0);
  for (int q = 1; q <= questions; ++q) groups.insert(groups.end(), question_tokens, q);
  if (questions > 0) groups.insert(groups.end(), 16, 0);
  return groups;
}

Structure MakeStructure(const AttentionCase& one) {
  Structure structure(RuleTable::Preset(one.rule), PositionPolicy::kSequential);
  for (int group : one.groups) structure.Append(group);
  return structure;
}

WorkList MakeWork(const AttentionCase& one, const Structure& structure,
                  const VisibleIntervals& intervals) {
  const Tiling tiling = AttentionTiling(DeviceKind::kCuda, one.ratio);
  const int length = structure.size();
  WorkList work;
  for (int s = 0; s < one.sequences; ++s) {
    const SequenceQueries queries = {.structure = &structure,
                                     .intervals = &intervals,
                                     .sequence = s,
                                     .row_begin = one.generated ? s : s * length,
                                     .query_begin = one.generated ? length - 1 : 0,
                                     .query_end = length};
    if (one.generated) {
      AppendDecodeTiles({.branches = {&queries, 1}}, tiling.split_kv_branches, &work);
    } else {
      AppendTiles(queries, tiling.tile_tokens, &work);
    }
  }
  return work;
}

Work CountWork(const AttentionCase& one, const Structure& structure) {
  const double length = structure.size();
  const double rows = one.generated ? 1.0 : length;
  const double pairs = one.generated ? length : static_cast<double>(CountVisiblePairs(structure));
  const double heads = one.kv_heads * one.ratio;
  return {.flops = 4.0 * pairs * one.head_dim * heads * one.sequences,
          .bytes = one.sequences * one.head_dim *
                   (2.0 * 2.0 * length * one.kv_heads + 6.0 * rows * heads)};
}

void BenchAttention(const AttentionCase& one) {
  const Structure structure = MakeStructure(one);
  VisibleIntervals intervals;
  intervals.Extend(structure);
  const WorkList work = MakeWork(one, structure, intervals);
  const int length = structure.size();
  const int blocks = (length + kBlockSize - 1) / kBlockSize;
  std::vector<int32_t> tables(static_cast<size_t>(blocks) * one.sequences);
  std::iota(tables.begin(), tables.end(), 0);
  const size_t cached = tables.size() * kBlockSize * one.kv_heads * one.head_dim;
  const size_t rows = static_cast<size_t>(one.generated ? 1 : length) * one.sequences;
  const int heads = one.kv_heads * one.ratio;

  const DeviceArray<Bfloat16> key(RandomBfloats(cached));
  const DeviceArray<Bfloat16> value(RandomBfloats(cached));
  const DeviceArray<float> query(RandomFloats(rows * heads * one.head_dim));
  const DeviceArray<Bfloat16> output(rows * heads * one.head_dim);
  const DeviceArray<int32_t> block_tables(tables);
  const DeviceArray<QueryTile> tiles(work.tiles);
  const DeviceArray<KeyInterval> key_intervals(work.intervals);
  const DeviceArray<QueryTile> generated(work.generated);
  const DeviceArray<KeySplit> splits(work.splits);
  const DeviceArray<float> partials(PartialFloats(work.partials, heads, one.head_dim));
  const AttentionParams params = {.query = query.data(),
                                  .output = output.data(),
                                  .output_dtype = DType::kBfloat16,
                                  .kv = {.key = key.data(),
                                         .value = value.data(),
                                         .dtype = DType::kBfloat16,
                                         .block_size = kBlockSize,
                                         .kv_heads = one.kv_heads,
                                         .head_dim = one.head_dim},
                                  .heads = heads,
                                  .scale = 0.125f,
                                  .block_tables = block_tables.data(),
                                  .block_table_stride = blocks,
                                  .tiles = tiles.data(),
                                  .tile_count = static_cast<int32_t>(work.tiles.size()),
                                  .intervals = key_intervals.data(),
                                  .generated = generated.data(),
                                  .generated_count = static_cast<int32_t>(work.generated.size()),
                                  .splits = splits.data(),
                                  .split_count = static_cast<int32_t>(work.splits.size()),
                                  .partials = partials.data()};
  Print(one.name + ", head_dim " + std::to_string(one.head_dim),
        SecondsOf([&] { Attention(kContext, params); }), CountWork(one, structure));
}

void BenchAttentions() {
  for (int head_dim : {64, 128}) {
    BenchAttention(
        {"prompt 4096, causal", RulePreset::kCausal, Groups(4096, 0, 0), 4, 8, 4, head_dim, false});
    BenchAttention({"prompt 1024 + 6 x 32, anchored", RulePreset::kAnchored, Groups(1024, 6, 32),
                    16, 8, 4, head_dim, false});
    BenchAttention({"16 questions of 256, isolated", RulePreset::kIsolated, Groups(0, 16, 256), 4,
                    8, 4, head_dim, false});
    BenchAttention({"64 generated tokens, 4096 keys", RulePreset::kCausal, Groups(4096, 0, 0), 64,
                    8, 4, head_dim, true});
    BenchAttention({"1 generated token, 16384 keys", RulePreset::kCausal, Groups(16384, 0, 0), 1, 8,
                    4, head_dim, true});
  }
}

// ---- Row-wise ops, in the shapes of an 8-billion-parameter model.

constexpr int64_t kRows = 8192;
constexpr int64_t kHidden = 4096;

void BenchNormAndActivation() {
  constexpr int64_t kInner = 14336;
  const DeviceArray<float> input(RandomFloats(kRows * kHidden));
  const DeviceArray<float> weight(RandomFloats(kHidden));
  const DeviceArray<Bfloat16> output(kRows * kInner);
  const RmsNormParams norm = {.input = input.data(),
                              .weight = weight.data(),
                              .output = output.data(),
                              .output_dtype = DType::kBfloat16,
                              .rows = kRows,
                              .columns = kHidden,
                              .epsilon = 1e-5f};
  Print("rms_norm 8192 x 4096", SecondsOf([&] { RmsNorm(kContext, norm); }),
        {.bytes = 6.0 * kRows * kHidden});
  const DeviceArray<float> gate_up(kRows * 2 * kInner);
  const SiluMulParams silu = {.gate_up = gate_up.data(),
                              .output = output.data(),
                              .output_dtype = DType::kBfloat16,
                              .rows = kRows,
                              .columns = kInner};
  Print("silu_mul 8192 x 14336", SecondsOf([&] { SiluMul(kContext, silu); }),
        {.bytes = 10.0 * kRows * kInner});
}

void BenchEmbedding() {
  constexpr int64_t kVocabulary = 128256;
  const DeviceArray<Bfloat16> table(kVocabulary * kHidden);
  std::vector<int32_t> ids(kRows);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 7919 % kVocabulary);
  const DeviceArray<int32_t> device_ids(ids);
  const DeviceArray<float> output(kRows * kHidden);
  const EmbeddingParams params = {.table = table.data(),
                                  .table_dtype = DType::kBfloat16,
                                  .ids = device_ids.data(),
                                  .output = output.data(),
                                  .rows = kRows,
                                  .columns = kHidden};
  Print("embedding 8192 x 4096", SecondsOf([&] { Embedding(kContext, params); }),
        {.bytes = 6.0 * kRows * kHidden});
}

void BenchRope() {
  constexpr int kHeads = 32;
  constexpr int kKvHeads = 8;
  constexpr int kDims = 128;
  const DeviceArray<float> qkv(RandomFloats(kRows * (kHeads + 2 * kKvHeads) * kDims));
  const DeviceArray<float> query(kRows * kHeads * kDims);
  const DeviceArray<float> angles(RandomFloats(kRows * kDims / 2));
  const DeviceArray<Bfloat16> cache(kRows * kKvHeads * kDims);
  const DeviceArray<Bfloat16> values(kRows * kKvHeads * kDims);
  std::vector<int64_t> slots(kRows);
  std::iota(slots.begin(), slots.end(), 0);
  const DeviceArray<int64_t> device_slots(slots);
  const RopeKvWriteParams params = {.qkv = qkv.data(),
                                    .query = query.data(),
                                    .cosine = angles.data(),
                                    .sine = angles.data(),
                                    .slots = device_slots.data(),
                                    .kv = {.key = cache.data(),
                                           .value = values.data(),
                                           .dtype = DType::kBfloat16,
                                           .block_size = kBlockSize,
                                           .kv_heads = kKvHeads,
                                           .head_dim = kDims},
                                    .heads = kHeads,
                                    .tokens = kRows};
  Print("rope_kv_write 8192 tokens", SecondsOf([&] { RopeKvWrite(kContext, params); }),
        {.bytes = double{kRows} * kDims * (8.0 * kHeads + 12.0 * kKvHeads + 4.0)});
}

void BenchInt8Linear(int64_t rows) {
  constexpr int64_t kInner = 14336;
  const DeviceArray<Bfloat16> input(RandomBfloats(rows * kHidden));
  const DeviceArray<int8_t> codes(kInner * kHidden);
  const DeviceArray<Float16> scales(kInner * kHidden / kInt8ScaleInputs);
  const DeviceArray<float> output(rows * kInner);
  const LinearParams params = {.input = input.data(),
                               .weight = {.kind = WeightKind::kInt8,
                                          .input_dtype = DType::kBfloat16,
                                          .outputs = kInner,
                                          .inputs = kHidden,
                                          .codes = codes.data(),
                                          .scales = scales.data()},
                               .output = output.data(),
                               .rows = rows};
  const double weights = double{kInner} * kHidden;
  Print(
      "int8_linear " + std::to_string(rows) + " x 4096 -> 14336",
      SecondsOf([&] { Linear(kContext, params); }),
      {.flops = 2.0 * rows * weights,
       .bytes = weights * (1.0 + 2.0 / kInt8ScaleInputs) + rows * (2.0 * kHidden + 4.0 * kInner)});
}

void BenchPickTokens(const std::string& name, const PickRule& rule) {
  constexpr int64_t kPicked = 64;
  constexpr int64_t kVocabulary = 151936;
  std::vector<float> values = RandomFloats(kPicked * kVocabulary);
  for (float& value : values) value *= 10.0f;
  const DeviceArray<float> logits(values);
  const DeviceArray<PickRule> rules(std::vector<PickRule>(kPicked, rule));
  const DeviceArray<LogitsPart> parts(kPicked * LogitsParts(kVocabulary));
  const DeviceArray<int32_t> ids(kPicked);
  const DeviceArray<float> logprobs(kPicked);
  const PickTokensParams params = {.logits = logits.data(),
                                   .rules = rules.data(),
                                   .parts = parts.data(),
                                   .ids = ids.data(),
                                   .logprobs = logprobs.data(),
                                   .rows = kPicked,
                                   .vocabulary = kVocabulary};
  Print("pick_tokens 64 x 151936, " + name, SecondsOf([&] { PickTokens(kContext, params); }),
        {.bytes = 4.0 * kPicked * kVocabulary});
}

}  // namespace
}  // namespace structattn

int main() {
  using namespace structattn;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return 77;
  }
  BenchAttentions();
  BenchNormAndActivation();
  BenchEmbedding();
  BenchRope();
  for (const int64_t rows : {1, 16, 64, 4096}) BenchInt8Linear(rows);
  BenchPickTokens("greedy", {});
  BenchPickTokens("top-p 0.9", {.temperature = 1.0f, .top_p = 0.9f, .uniform = 0.3});
  BenchPickTokens("no filter", {.temperature = 1.0f, .uniform = 0.3});
  return 0;
}
