// The visible keys of one query tile as the CPU kernel walks them: sixteen cache slots at a time.
// Built per tile by attention_cpu.cc from the work-list's intervals; knows nothing of values.
#ifndef STRUCTATTN_KERNELS_ATTENTION_KEY_TILES_H_
#define STRUCTATTN_KERNELS_ATTENTION_KEY_TILES_H_

#include <cstdint>
#include <vector>

#include "kernels/attention/attention.h"

namespace structattn {

// Keys whose scores are computed together. Blocks are multiples of it.
inline constexpr int kTileKeys = 16;

// Slots [offset, offset + kTileKeys) of a cache block. The rank of a key is its place among the
// tile's visible keys; what a row sees is always a prefix of them.
struct KeyTile {
  int32_t block;
  int32_t offset;
  int32_t rank;      // Of the first visible key in the key tile.
  uint32_t visible;  // Bit n: slot offset + n holds a visible key. Never 0.
};

// Replaces `key_tiles` by the key tiles of `tile` in order, and `row_keys` by how many of its keys
// each row of the tile sees (nondecreasing).
void CollectKeys(const AttentionParams& params, const QueryTile& tile,
                 std::vector<KeyTile>* key_tiles, std::vector<int32_t>* row_keys);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ATTENTION_KEY_TILES_H_
