// A cache, block tables and a work-list around the sequences of a test.
#include "tests/kernels/attention/paged_batch.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "tests/kernels/cpu_kv_layout.h"

namespace structattn {
namespace {

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

// Calls `function` with a zero of the storage type.
template <typename Function>
auto WithType(DType dtype, Function function) {
  switch (dtype) {
    case DType::kBfloat16:
      return function(Bfloat16{});
    case DType::kFloat16:
      return function(Float16{});
    default:
      return function(float{});
  }
}

Placement PlacementOf(const Part& part, const AttentionShape& shape, uint64_t seed) {
  Placement placement(seed % 2 == 0 ? shape.block_size : 1);
  placement.Extend(part.sequence->structure);
  return placement;
}

// One layer's cache with all slots poisoned, and the block tables of the batch.
template <typename T>
class Cache {
 public:
  Cache(const AttentionShape& shape, std::span<const Part> parts, uint64_t placement_seed)
      : shape_(shape), placement_seed_(placement_seed) {
    int blocks = 3;  // These have no owner.
    for (const Part& part : parts) {
      const int owned = Blocks(part);
      blocks += owned;
      table_stride_ = std::max(table_stride_, owned);
    }
    std::vector<int32_t> ids(blocks);
    std::iota(ids.begin(), ids.end(), 0);
    Random random(placement_seed);
    std::shuffle(ids.begin(), ids.end(), random);
    key_.assign(int64_t{blocks} * BlockElements(), FromFloat<T>(kPoison));
    value_ = key_;
    // Table entries past a sequence's blocks point outside the cache.
    tables_.assign(parts.size() * table_stride_, std::numeric_limits<int32_t>::max() / 2);
    auto next = ids.begin();
    for (size_t s = 0; s < parts.size(); ++s) {
      const int owned = Blocks(parts[s]);
      std::copy_n(next, owned, tables_.begin() + s * table_stride_);
      next += owned;
      Fill(parts[s], s);
    }
  }

  KvLayerView View() {
    return {.key = key_.data(),
            .value = value_.data(),
            .dtype = shape_.kv_dtype,
            .block_size = shape_.block_size,
            .kv_heads = shape_.kv_heads,
            .head_dim = shape_.head_dim};
  }
  const int32_t* tables() const { return tables_.data(); }
  int table_stride() const { return table_stride_; }

 private:
  int Blocks(const Part& part) const {
    const int32_t slots = PlacementOf(part, shape_, placement_seed_).SlotsOf(part.end);
    return (slots + shape_.block_size - 1) / shape_.block_size;
  }
  int64_t BlockElements() const {
    return int64_t{shape_.kv_heads} * shape_.head_dim * shape_.block_size;
  }

  // Writes the keys and values that some query of the part sees.
  void Fill(const Part& part, size_t s) {
    const Placement placement = PlacementOf(part, shape_, placement_seed_);
    for (int token = 0; token < part.end; ++token) {
      bool seen = false;
      for (int query = part.begin; query < part.end && !seen; ++query) {
        seen = part.sequence->Sees(query, token);
      }
      if (!seen) continue;
      const int32_t place = placement.SlotOf(token);
      const int64_t block = tables_[s * table_stride_ + place / shape_.block_size];
      const int64_t slot = block * shape_.block_size + place % shape_.block_size;
      for (int head = 0; head < shape_.kv_heads; ++head) {
        const int64_t from = (int64_t{token} * shape_.kv_heads + head) * shape_.head_dim;
        for (int dim = 0; dim < shape_.head_dim; ++dim) {
          key_[CpuKeyIndex(View(), slot, head, dim)] = FromFloat<T>(part.sequence->key[from + dim]);
          value_[CpuValueIndex(View(), slot, head, dim)] =
              FromFloat<T>(part.sequence->value[from + dim]);
        }
      }
    }
  }

  const AttentionShape shape_;
  const uint64_t placement_seed_;
  std::vector<T> key_;
  std::vector<T> value_;
  std::vector<int32_t> tables_;
  int table_stride_ = 0;
};

WorkList MakeWorkList(const AttentionShape& shape, std::span<const Part> parts,
                      const RunOptions& options) {
  WorkList work;
  int row = 0;
  for (size_t s = 0; s < parts.size(); ++s) {
    VisibleIntervals visible(PlacementOf(parts[s], shape, options.placement_seed));
    visible.Extend(parts[s].sequence->structure);
    AppendTiles({.structure = &parts[s].sequence->structure,
                 .intervals = &visible,
                 .sequence = static_cast<int32_t>(s),
                 .row_begin = row,
                 .query_begin = parts[s].begin,
                 .query_end = parts[s].end,
                 .window = parts[s].sequence->window},
                options.tile_rows, &work);
    row += parts[s].end - parts[s].begin;
  }
  return work;
}

template <typename T>
void RunOnCache(const AttentionShape& shape, std::span<const Part> parts, const RunOptions& options,
                AttentionParams params) {
  Cache<T> cache(shape, parts, options.placement_seed);
  WorkList work = MakeWorkList(shape, parts, options);
  if (options.tamper) options.tamper(&work);
  params.kv = cache.View();
  params.block_tables = cache.tables();
  params.block_table_stride = cache.table_stride();
  params.tiles = work.tiles.data();
  params.tile_count = static_cast<int32_t>(work.tiles.size());
  params.intervals = work.intervals.data();
  ThreadPool pool(options.threads);
  if (options.kernel) {
    AttentionCpuWith(*options.kernel, pool, params);
  } else {
    Attention({.device = DeviceKind::kCpu, .pool = &pool}, params);
  }
}

}  // namespace

HeadShape AttentionShape::Heads() const {
  return {.heads = heads(),
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .scale = static_cast<float>(1.0 / std::sqrt(head_dim)),
          .kv_dtype = kv_dtype};
}

SequenceTensors RandomSequence(Random& random, const AttentionShape& shape, Structure structure) {
  std::normal_distribution<float> normal;
  const size_t tokens = structure.size();
  SequenceTensors sequence{.structure = std::move(structure), .query = {}, .key = {}, .value = {}};
  sequence.query.resize(tokens * shape.heads() * shape.head_dim);
  sequence.key.resize(tokens * shape.kv_heads * shape.head_dim);
  sequence.value.resize(sequence.key.size());
  for (float& x : sequence.query) x = normal(random);
  WithType(shape.kv_dtype, [&]<typename T>(T) {
    for (float& x : sequence.key) x = ToFloat(FromFloat<T>(normal(random)));
    for (float& x : sequence.value) x = ToFloat(FromFloat<T>(normal(random)));
  });
  return sequence;
}

std::vector<float> RunBatch(const AttentionShape& shape, std::span<const Part> parts,
                            const RunOptions& options) {
  const int64_t row_elements = int64_t{shape.heads()} * shape.head_dim;
  std::vector<float> query;
  for (const Part& part : parts) {
    const auto begin = part.sequence->query.begin();
    query.insert(query.end(), begin + part.begin * row_elements, begin + part.end * row_elements);
  }
  std::vector<float> result(query.size());
  WithType(shape.output_dtype, [&]<typename Out>(Out) {
    std::vector<Out> output(query.size(), FromFloat<Out>(kPoison));
    AttentionParams params;
    params.query = query.data();
    params.output = output.data();
    params.output_dtype = shape.output_dtype;
    params.heads = shape.heads();
    params.scale = shape.Heads().scale;
    WithType(shape.kv_dtype, [&]<typename T>(T) { RunOnCache<T>(shape, parts, options, params); });
    std::transform(output.begin(), output.end(), result.begin(),
                   [](Out value) { return ToFloat(value); });
  });
  return result;
}

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

}  // namespace structattn
