// The visible keys of one query tile as the CPU kernels walk them: sixteen cache slots at a time.
// Key tiles never cross a block, and they point at keys without reading them.
#ifndef STRUCTATTN_KERNELS_ATTENTION_KEY_TILES_H_
#define STRUCTATTN_KERNELS_ATTENTION_KEY_TILES_H_

#include <cstdint>
#include <vector>

#include "kernels/attention/attention.h"

namespace structattn {

// Keys whose scores are computed together. A block has a multiple of so many slots.
inline constexpr int kTileKeys = 16;

// Slots [offset, offset + kTileKeys) of a cache block, with at least one visible key.
struct KeyTile {
  int32_t block;
  int32_t offset;
  int32_t rank;      // The key rank of the first visible key.
  uint32_t visible;  // Bit n: slot offset + n holds a visible key. Never 0.
};

// Replaces `key_tiles` by the key tiles of `tile` in order of key rank, and `row_keys` by the
// number of keys that each row of the tile sees, which never decreases from row to row.
void CollectKeys(const AttentionParams& params, const QueryTile& tile,
                 std::vector<KeyTile>* key_tiles, std::vector<int32_t>* row_keys);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ATTENTION_KEY_TILES_H_
