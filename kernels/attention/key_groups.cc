// Cuts a tile's key intervals at the causal bound and at groups of sixteen slots, through the block
// table. Called by attention_cpu.cc. The only place of the CPU kernel that reads intervals.
#include "kernels/attention/key_groups.h"

#include <algorithm>

namespace structattn {
namespace {

// Slots [begin, end) of a group, 0 <= begin < end <= kGroupKeys.
uint32_t SlotBits(int32_t begin, int32_t end) { return (1u << end) - (1u << begin); }

}  // namespace

void CollectKeys(const AttentionParams& params, const QueryTile& tile,
                 std::vector<KeyGroup>* groups, std::vector<int32_t>* row_keys) {
  const int32_t* table = params.block_tables + int64_t{tile.sequence} * params.block_table_stride;
  const int32_t bound = tile.query_begin + tile.query_count;
  groups->clear();
  row_keys->assign(tile.query_count, 0);
  int32_t before = 0;  // Keys of intervals that all rows see whole.
  int32_t rank = 0;
  int32_t last_start = -1;  // First key index of the last group.
  for (int32_t n = tile.interval_begin; n < tile.interval_end; ++n) {
    const KeyInterval interval = params.intervals[n];
    if (interval.begin >= bound) break;
    const int32_t interval_end = std::min(interval.end, bound);
    if (interval_end <= tile.query_begin) {
      before += interval_end - interval.begin;
    } else {
      for (int32_t row = 0; row < tile.query_count; ++row) {
        const int32_t seen = std::min(interval_end, tile.query_begin + row + 1) - interval.begin;
        (*row_keys)[row] += std::max(seen, 0);
      }
    }
    for (int32_t key = interval.begin; key < interval_end;) {
      const int32_t start = key / kGroupKeys * kGroupKeys;
      const int32_t end = std::min(interval_end, start + kGroupKeys);
      if (start != last_start) {
        groups->push_back({.block = table[start / params.kv.block_size],
                           .offset = start % params.kv.block_size,
                           .rank = rank,
                           .visible = 0});
        last_start = start;
      }
      groups->back().visible |= SlotBits(key - start, end - start);
      rank += end - key;
      key = end;
    }
  }
  for (int32_t& keys : *row_keys) keys += before;
}

}  // namespace structattn
