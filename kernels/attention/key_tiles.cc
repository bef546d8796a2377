// Cuts a query tile's intervals into key tiles through the block table, up to the last key that a
// row sees. No other file of the CPU kernels reads intervals.
#include "kernels/attention/key_tiles.h"

#include <algorithm>

namespace structattn {
namespace {

// The bits of slots [begin, end) of a key tile, where 0 <= begin < end <= kTileKeys.
uint32_t SlotBits(int32_t begin, int32_t end) { return (1u << end) - (1u << begin); }

}  // namespace

void CollectKeys(const AttentionParams& params, const QueryTile& tile,
                 std::vector<KeyTile>* key_tiles, std::vector<int32_t>* row_keys) {
  const int32_t* table = params.block_tables + int64_t{tile.sequence} * params.block_table_stride;
  key_tiles->clear();
  row_keys->resize(tile.query_count);
  const int32_t keys = tile.keys();
  int32_t rank = 0;
  int32_t last_start = -1;  // The first slot of the last key tile.
  for (int32_t n = tile.interval_begin; n < tile.interval_end && rank < keys; ++n) {
    const KeyInterval interval = params.intervals[n];
    const int32_t interval_end = std::min(interval.end, interval.begin + (keys - rank));
    for (int32_t slot = interval.begin; slot < interval_end;) {
      const int32_t start = slot / kTileKeys * kTileKeys;
      const int32_t end = std::min(interval_end, start + kTileKeys);
      if (start != last_start) {
        key_tiles->push_back({.block = table[start / params.kv.block_size],
                              .offset = start % params.kv.block_size,
                              .rank = rank,
                              .visible = 0});
        last_start = start;
      }
      key_tiles->back().visible |= SlotBits(slot - start, end - start);
      rank += end - slot;
      slot = end;
    }
  }
  for (int32_t row = 0; row < tile.query_count; ++row) {
    (*row_keys)[row] = std::min(tile.KeysOfRow(row), rank);
  }
}

}  // namespace structattn
