// A cache, block tables, a work-list and the registration of what of them is needed.
#include "tests/simt/attention_batch.h"

#include <algorithm>
#include <limits>
#include <list>
#include <numeric>
#include <set>
#include <utility>

#include "kernels/attention/flash_attention.cuh"
#include "kernels/cuda/ops.h"
#include "tests/kernels/typed_buffer.h"

namespace structattn {
namespace {

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();
constexpr int kTileKeys = 64;  // The key ranks of a key tile of the tensor core kernel.

// The query rows of a warp, which multiplies all of them if it has any.
template <int kDims>
constexpr int kWarpRows = 16 * emulated::FlashAttentionKernel<Bfloat16, kDims, false>::kBands;

int WarpRows(int head_dim) {
  if (head_dim <= 80) return head_dim == 64 ? kWarpRows<64> : kWarpRows<80>;
  return head_dim == 96 ? kWarpRows<96> : kWarpRows<128>;
}

int DivideUp(int a, int b) { return (a + b - 1) / b; }

// Where the tokens of each part lie.
std::vector<Placement> PlacementsOf(std::span<const EmulatedPart> parts, int block_size,
                                    uint64_t seed) {
  const bool shares = std::ranges::any_of(parts, [](const auto& p) { return p.shared_tokens > 0; });
  std::vector<Placement> placements(parts.size(),
                                    Placement(seed % 2 == 0 && !shares ? block_size : 1));
  for (size_t s = 0; s < parts.size(); ++s) placements[s].Extend(parts[s].sequence->structure);
  return placements;
}

// One layer's cache, the block tables of the batch, and which slots are seen.
class Cache {
 public:
  Cache(const AttentionShape& shape, std::span<const EmulatedPart> parts, uint64_t placement_seed)
      : shape_(shape),
        placements_(PlacementsOf(parts, shape.block_size, placement_seed)),
        key_(shape.kv_dtype, {}),
        value_(shape.kv_dtype, {}) {
    const int blocks = PlaceBlocks(parts, placement_seed);
    const int64_t elements = int64_t{blocks} * shape.kv_heads * shape.block_size * shape.head_dim;
    key_ = TypedBuffer(shape.kv_dtype, std::vector<float>(elements, kPoison));
    value_ = key_;
    for (size_t s = 0; s < parts.size(); ++s) Fill(parts[s], s);
    RegisterSeenRows();
    for (size_t s = 0; s < parts.size(); ++s) {
      memory_.emplace_back(&tables_[s * stride_], Blocks(parts[s], s) * sizeof(int32_t),
                           simt::Access::kReadOnly);
    }
  }

  void SetParams(AttentionParams* params) {
    params->kv = {.key = key_.data(),
                  .value = value_.data(),
                  .dtype = shape_.kv_dtype,
                  .block_size = shape_.block_size,
                  .kv_heads = shape_.kv_heads,
                  .head_dim = shape_.head_dim};
    params->block_tables = tables_.data();
    params->block_table_stride = stride_;
  }

 private:
  int Blocks(const EmulatedPart& part, size_t s) const {
    return DivideUp(placements_[s].SlotsOf(part.end), shape_.block_size);
  }

  // Fills the tables; returns the number of blocks in the cache.
  int PlaceBlocks(std::span<const EmulatedPart> parts, uint64_t seed) {
    int blocks = 3;  // These have no owner.
    for (size_t s = 0; s < parts.size(); ++s) {
      blocks += Blocks(parts[s], s);
      stride_ = std::max(stride_, Blocks(parts[s], s));
    }
    std::vector<int32_t> ids(blocks);
    std::iota(ids.begin(), ids.end(), 0);
    Random random(seed);
    std::shuffle(ids.begin(), ids.end(), random);
    tables_.assign(parts.size() * stride_, std::numeric_limits<int32_t>::max() / 2);
    auto next = ids.begin();
    for (size_t s = 0; s < parts.size(); ++s) {
      const int shared = parts[s].shared_tokens / shape_.block_size;
      const auto row = tables_.begin() + s * stride_;
      if (shared > 0) std::copy_n(row - stride_, shared, row);
      const int owned = Blocks(parts[s], s) - shared;
      std::copy_n(next, owned, row + shared);
      next += owned;
    }
    return blocks;
  }

  // Writes the keys and values that some query of the part sees.
  void Fill(const EmulatedPart& part, size_t s) {
    for (int token = 0; token < part.end; ++token) {
      bool seen = false;
      for (int query = part.begin; query < part.end && !seen; ++query) {
        seen = part.sequence->Sees(query, token);
      }
      if (!seen) continue;
      const int32_t slot = placements_[s].SlotOf(token);
      const int64_t block = tables_[s * stride_ + slot / shape_.block_size];
      for (int head = 0; head < shape_.kv_heads; ++head) {
        const int64_t row =
            (block * shape_.kv_heads + head) * shape_.block_size + slot % shape_.block_size;
        const int64_t from = (int64_t{token} * shape_.kv_heads + head) * shape_.head_dim;
        seen_rows_.insert(row);
        for (int dim = 0; dim < shape_.head_dim; ++dim) {
          key_.Set(row * shape_.head_dim + dim, part.sequence->key[from + dim]);
          value_.Set(row * shape_.head_dim + dim, part.sequence->value[from + dim]);
        }
      }
    }
  }

  // Registers rows in succession as one range.
  void RegisterSeenRows() {
    const size_t row_bytes = shape_.head_dim * ByteSize(shape_.kv_dtype);
    for (auto row = seen_rows_.begin(); row != seen_rows_.end();) {
      const int64_t first = *row;
      int64_t end = first;
      for (; row != seen_rows_.end() && *row == end; ++row) ++end;
      for (TypedBuffer* cache : {&key_, &value_}) {
        memory_.emplace_back(cache->At(first * shape_.head_dim), (end - first) * row_bytes,
                             simt::Access::kReadOnly);
      }
    }
  }

  const AttentionShape shape_;
  const std::vector<Placement> placements_;
  TypedBuffer key_;
  TypedBuffer value_;
  std::vector<int32_t> tables_;
  int stride_ = 0;
  std::set<int64_t> seen_rows_;  // Rows of [blocks, kv_heads, block_size].
  std::list<simt::Memory> memory_;
};

// The queries of each part, with the intervals that its sequence has.
class Queries {
 public:
  Queries(std::span<const EmulatedPart> parts, const std::vector<Placement>& placements)
      : intervals_(placements.begin(), placements.end()) {
    int row = 0;
    for (size_t s = 0; s < parts.size(); ++s) {
      intervals_[s].Extend(parts[s].sequence->structure);
      queries_.push_back({.structure = &parts[s].sequence->structure,
                          .intervals = &intervals_[s],
                          .sequence = static_cast<int32_t>(s),
                          .row_begin = row,
                          .query_begin = parts[s].begin,
                          .query_end = parts[s].end,
                          .window = parts[s].sequence->window});
      row += parts[s].end - parts[s].begin;
    }
  }

  std::span<const SequenceQueries> Parts(size_t begin, size_t end) const {
    return std::span(queries_).subspan(begin, end - begin);
  }

 private:
  std::vector<VisibleIntervals> intervals_;
  std::vector<SequenceQueries> queries_;
};

int32_t CountVisible(const EmulatedPart& part, int tokens) {
  int32_t keys = 0;
  for (int key = 0; key < tokens; ++key) {
    keys += part.sequence->Sees(part.begin, key);
  }
  return keys;
}

WorkList MakeWorkList(const AttentionShape& shape, std::span<const EmulatedPart> parts,
                      const Queries& queries) {
  const Tiling tiling = AttentionTiling(DeviceKind::kEmulated, shape.ratio);
  WorkList work;
  for (size_t s = 0; s < parts.size();) {
    size_t end = s + 1;
    if (!parts[s].generated) {
      AppendTiles(queries.Parts(s, end)[0], tiling.tile_tokens, &work);
    } else {
      int shared = parts[s].end;
      for (; end < parts.size() && parts[end].shared_tokens > 0; ++end) {
        shared = std::min(shared, parts[end].shared_tokens);
      }
      shared = end - s == 1 ? 0 : shared / shape.block_size * shape.block_size;
      AppendDecodeTiles({queries.Parts(s, end), CountVisible(parts[s], shared)},
                        tiling.split_kv_branches, &work);
    }
    s = end;
  }
  return work;
}

std::vector<float> BatchQuery(const AttentionShape& shape, std::span<const EmulatedPart> parts) {
  const int64_t row_elements = int64_t{shape.heads()} * shape.head_dim;
  std::vector<float> query;
  for (const EmulatedPart& part : parts) {
    const auto begin = part.sequence->query.begin();
    query.insert(query.end(), begin + part.begin * row_elements, begin + part.end * row_elements);
  }
  return query;
}

}  // namespace

EmulatedResult RunEmulated(const AttentionShape& shape, std::span<const EmulatedPart> parts,
                           const EmulatedOptions& options) {
  Cache cache(shape, parts, options.placement_seed);
  const Queries queries(parts, PlacementsOf(parts, shape.block_size, options.placement_seed));
  const WorkList work = MakeWorkList(shape, parts, queries);
  const std::vector<float> query = BatchQuery(shape, parts);
  TypedBuffer output(shape.kv_dtype, std::vector<float>(query.size(), kPoison));
  std::vector<float> partials(PartialFloats(work.partials, shape.heads(), shape.head_dim), kPoison);
  AttentionParams params = {.query = query.data(),
                            .output = output.data(),
                            .output_dtype = shape.kv_dtype,
                            .kv = {},
                            .heads = shape.heads(),
                            .scale = shape.Heads().scale,
                            .tiles = work.tiles.data(),
                            .tile_count = static_cast<int32_t>(work.tiles.size()),
                            .intervals = work.intervals.data(),
                            .generated = work.generated.data(),
                            .generated_count = static_cast<int32_t>(work.generated.size()),
                            .splits = work.splits.data(),
                            .split_count = static_cast<int32_t>(work.splits.size()),
                            .partials = partials.data()};
  cache.SetParams(&params);
  const simt::Memory writable[] = {
      {output.data(), query.size() * ByteSize(shape.kv_dtype), simt::Access::kWritable},
      {partials.data(), partials.size() * sizeof(float), simt::Access::kWritable}};
  const simt::Memory query_memory = simt::ReadOnly(query);
  const simt::Memory tiles = simt::ReadOnly(work.tiles);
  const simt::Memory intervals = simt::ReadOnly(work.intervals);
  const simt::Memory generated = simt::ReadOnly(work.generated);
  const simt::Memory splits = simt::ReadOnly(work.splits);
  simt::SetSeed(options.schedule);
  simt::TakeLaunches();
  CudaOpsFor(DeviceKind::kEmulated).attention({.device = DeviceKind::kEmulated}, params);
  return {.output = output.ToFloats(),
          .reports = simt::Describe(simt::TakeReports()),
          .launches = simt::TakeLaunches()};
}

TileWork NeededTileWork(const AttentionShape& shape, std::span<const EmulatedPart> parts) {
  const int tile_tokens = AttentionTiling(DeviceKind::kEmulated, shape.ratio).tile_tokens;
  TileWork work;
  for (const EmulatedPart& part : parts) {
    if (part.generated) continue;
    const Structure& structure = part.sequence->structure;
    // The rule's row of a token, and the first key that it sees.
    const auto seen_by = [&](int token) {
      int first = 0;
      while (first < token && !part.sequence->Sees(token, first)) ++first;
      return std::pair(structure.rule().visible[structure.groups()[token]], first);
    };
    for (int begin = part.begin; begin < part.end;) {
      int end = begin + 1;
      while (end < part.end && end - begin < tile_tokens && seen_by(end) == seen_by(begin)) ++end;
      int keys = 0;
      for (int key = 0; key < end; ++key) keys += part.sequence->Sees(end - 1, key);
      const int tiles = DivideUp(keys, kTileKeys);
      const int warp_rows = WarpRows(shape.head_dim);
      const int bands = DivideUp((end - begin) * shape.ratio, warp_rows) * (warp_rows / 16);
      // Sixteen rows and a key tile take head_dim / 16 x 8 products for scores and 4 x head_dim / 8
      // for values.
      work.multiply_accumulates += int64_t{tiles} * bands * shape.head_dim * shape.kv_heads;
      const int64_t chunks = int64_t{shape.head_dim} / 8 * 2 * shape.kv_heads;
      work.copies += keys * chunks;
      work.zero_fills += (tiles * kTileKeys - keys) * chunks;
      begin = end;
    }
  }
  return work;
}

}  // namespace structattn
