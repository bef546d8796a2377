// Random tensors in a cache whose blocks lie in order, and the work-list of one prompt.
#include "tests/bench/attention_case.h"

#include <algorithm>
#include <cmath>

#include "kernels/attention/attention_cpu.h"
#include "kernels/attention/key_tiles.h"
#include "kernels/check.h"
#include "tests/kernels/cpu_kv_layout.h"

namespace structattn {
namespace {

constexpr int kBlockSize = 32;

Structure MakeStructure(const AttentionProblem& problem) {
  Structure structure(RuleTable::Preset(problem.preset), PositionPolicy::kSequential);
  const int first = problem.preset == RulePreset::kShared ? 0 : 1;
  for (int64_t i = 0; i < problem.tokens; ++i) {
    structure.Append(first + static_cast<int>(i * problem.groups / problem.tokens));
  }
  return structure;
}

template <typename T>
void Write(const KvLayerView& kv, const SequenceTensors& sequence) {
  int64_t from = 0;
  for (int64_t token = 0; token < sequence.structure.size(); ++token) {
    for (int64_t head = 0; head < kv.kv_heads; ++head) {
      for (int64_t dim = 0; dim < kv.head_dim; ++dim, ++from) {
        static_cast<T*>(kv.key)[CpuKeyIndex(kv, token, head, dim)] =
            FromFloat<T>(sequence.key[from]);
        static_cast<T*>(kv.value)[CpuValueIndex(kv, token, head, dim)] =
            FromFloat<T>(sequence.value[from]);
      }
    }
  }
}

float Element(DType dtype, const void* tensor, int64_t index) {
  if (dtype == DType::kBfloat16) return ToFloat(static_cast<const Bfloat16*>(tensor)[index]);
  if (dtype == DType::kFloat16) return ToFloat(static_cast<const Float16*>(tensor)[index]);
  return static_cast<const float*>(tensor)[index];
}

// Half a unit in the last place, relative; the values here are far from subnormal.
double Roundoff(DType dtype) {
  if (dtype == DType::kBfloat16) return 0x1p-8;
  return dtype == DType::kFloat16 ? 0x1p-11 : 0x1p-24;
}

float Rounded(DType dtype, float value) {
  if (dtype == DType::kBfloat16) return ToFloat(FromFloat<Bfloat16>(value));
  return dtype == DType::kFloat16 ? ToFloat(FromFloat<Float16>(value)) : value;
}

}  // namespace

AttentionCase::AttentionCase(const AttentionProblem& problem)
    : problem_(problem),
      sequence_{.structure = MakeStructure(problem), .query = {}, .key = {}, .value = {}} {
  Fill(problem_.heads, &sequence_.query);
  Fill(problem_.kv_heads, &sequence_.key);
  Fill(problem_.kv_heads, &sequence_.value);
  for (float& x : sequence_.key) x = Rounded(problem_.dtype, x);
  for (float& x : sequence_.value) x = Rounded(problem_.dtype, x);
  WriteCache();
  VisibleIntervals visible;
  visible.Extend(sequence_.structure);
  AppendTiles({.structure = &sequence_.structure,
               .intervals = &visible,
               .sequence = 0,
               .row_begin = 0,
               .query_begin = problem_.query_begin,
               .query_end = problem_.tokens},
              kCpuTileRows, &work_);
  output_ =
      hwy::AllocateAligned<char>(int64_t{problem_.tokens - problem_.query_begin} * problem_.heads *
                                 problem_.head_dim * ByteSize(problem_.dtype));
}

void AttentionCase::Fill(int heads, std::vector<float>* tensor) {
  tensor->resize(size_t(problem_.tokens) * heads * problem_.head_dim);
  for (float& x : *tensor) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    x = static_cast<float>(static_cast<int64_t>(state_) >> 40) * 0x1p-22f;
  }
}

void AttentionCase::WriteCache() {
  STRUCTATTN_CHECK(problem_.tokens % kBlockSize == 0);
  key_elements_ = static_cast<int64_t>(sequence_.key.size());
  key_ = hwy::AllocateAligned<char>(key_elements_ * ByteSize(problem_.dtype));
  value_ = hwy::AllocateAligned<char>(key_elements_ * ByteSize(problem_.dtype));
  for (int block = 0; block < problem_.tokens / kBlockSize; ++block) table_.push_back(block);
  const KvLayerView kv = Params().kv;
  if (kv.dtype == DType::kFloat32) Write<float>(kv, sequence_);
  if (kv.dtype == DType::kBfloat16) Write<Bfloat16>(kv, sequence_);
  if (kv.dtype == DType::kFloat16) Write<Float16>(kv, sequence_);
}

AttentionParams AttentionCase::Params() const {
  AttentionParams params;
  params.query =
      sequence_.query.data() + int64_t{problem_.query_begin} * problem_.heads * problem_.head_dim;
  params.output = output_.get();
  params.output_dtype = problem_.dtype;
  params.kv = {.key = key_.get(),
               .value = value_.get(),
               .dtype = problem_.dtype,
               .block_size = kBlockSize,
               .kv_heads = problem_.kv_heads,
               .head_dim = problem_.head_dim};
  params.heads = problem_.heads;
  params.scale = 1.0f / std::sqrt(static_cast<float>(problem_.head_dim));
  params.block_tables = table_.data();
  params.block_table_stride = static_cast<int32_t>(table_.size());
  params.tiles = work_.tiles.data();
  params.tile_count = static_cast<int32_t>(work_.tiles.size());
  params.intervals = work_.intervals.data();
  return params;
}

void AttentionCase::Run(ThreadPool& pool) {
  Attention({.device = DeviceKind::kCpu, .pool = &pool}, Params());
}

void AttentionCase::Check() const {
  CheckRow(problem_.tokens - 1);
  CheckRow(problem_.query_begin + (problem_.tokens - problem_.query_begin) / 2);
}

void AttentionCase::CheckRow(int token) const {
  const HeadShape shape = {.heads = problem_.heads,
                           .kv_heads = problem_.kv_heads,
                           .head_dim = problem_.head_dim,
                           .scale = Params().scale,
                           .kv_dtype = problem_.dtype};
  for (int head = 0; head < problem_.heads; ++head) {
    const ReferenceRow row = ReferenceAttention(sequence_, shape, token, head);
    const int64_t begin =
        (int64_t{token - problem_.query_begin} * problem_.heads + head) * problem_.head_dim;
    for (int dim = 0; dim < problem_.head_dim; ++dim) {
      const double expected = row.output[dim];
      const double tolerance = row.tolerance[dim];
      const double allowed =
          tolerance + (std::abs(expected) + tolerance) * Roundoff(problem_.dtype) + 0x1p-25;
      const float actual = Element(problem_.dtype, output_.get(), begin + dim);
      STRUCTATTN_CHECK(std::abs(actual - expected) <= allowed);
    }
  }
}

int64_t AttentionCase::VisiblePairs() const {
  int64_t pairs = 0;
  for (int i = problem_.query_begin; i < problem_.tokens; ++i) {
    for (const structattn::Run& run : sequence_.structure.runs()) {
      if (run.begin > i) break;
      if (MaySee(sequence_.structure, i, run.begin)) pairs += std::min(run.end, i + 1) - run.begin;
    }
  }
  return pairs;
}

int64_t AttentionCase::TilePairs() const {
  const RowBand band = AttentionCpuBand(problem_.dtype, problem_.head_dim);
  const AttentionParams params = Params();
  std::vector<KeyTile> key_tiles;
  std::vector<int32_t> row_keys;
  int64_t pairs = 0;
  for (const QueryTile& tile : work_.tiles) {
    CollectKeys(params, tile, &key_tiles, &row_keys);
    for (int row = 0; row < tile.query_count; row += band.rows) {
      const int end = std::min(row + band.rows, tile.query_count);
      const int rows = (end - row + band.row_multiple - 1) / band.row_multiple;
      const auto seen = std::partition_point(
          key_tiles.begin(), key_tiles.end(),
          [&](const KeyTile& key_tile) { return key_tile.rank < row_keys[end - 1]; });
      pairs += (seen - key_tiles.begin()) * kTileKeys * rows * band.row_multiple;
    }
  }
  return pairs;
}

}  // namespace structattn
