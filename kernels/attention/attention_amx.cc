// Attention on CPUs with AMX: products of tiles of bfloat16. AmxAttentionKernel() offers it only
// after the CPU, the operating system and a comparison with the kernel for AVX512_BF16 have agreed,
// because a virtual machine may offer what its host does not do.
#include "kernels/attention/attention_kernel.h"

#if defined(__x86_64__) && defined(__linux__)

#include <cmath>
#include <cstdint>
#include <string_view>
#include <thread>
#include <vector>

#include "kernels/amx.h"
#include "kernels/attention/attention_amx-inl.h"

namespace structattn {
namespace {

// What a kernel gives for a prompt of 40 tokens and two heads.
std::vector<float> SmallAttention(const AttentionKernel& kernel) {
  constexpr int kTokens = 40;
  constexpr int kHeads = 2;
  constexpr int kDims = 64;
  constexpr int kBlockSize = 16;
  std::vector<float> query(kTokens * kHeads * kDims);
  std::vector<float> output(query.size());
  std::vector<Bfloat16> key(48 * kDims);
  std::vector<Bfloat16> value(key.size());
  uint32_t state = 1;
  const auto next = [&state] {  // Uniform in [-1, 1).
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
  };
  for (float& x : query) x = 4.0f * next();
  for (Bfloat16& x : key) x = FromFloat<Bfloat16>(next());
  for (Bfloat16& x : value) x = FromFloat<Bfloat16>(next());
  const int32_t table[] = {2, 0, 1};
  const KeyInterval intervals[] = {{0, 21}, {23, kTokens + 2}};
  const QueryTile tile = {.sequence = 0,
                          .row_begin = 0,
                          .query_begin = 0,
                          .query_count = kTokens,
                          .interval_begin = 0,
                          .interval_end = 2,
                          .sees_itself = 1};
  AttentionParams params;
  params.query = query.data();
  params.output = output.data();
  params.kv = {.key = key.data(),
               .value = value.data(),
               .dtype = DType::kBfloat16,
               .block_size = kBlockSize,
               .kv_heads = 1,
               .head_dim = kDims};
  params.heads = kHeads;
  params.scale = 0.125f;
  params.block_tables = table;
  params.block_table_stride = 3;
  params.tiles = &tile;
  params.tile_count = 1;
  params.intervals = intervals;
  kernel.run({.params = &params,
              .tile = &tile,
              .kv_head = 0,
              .row_begin = 0,
              .row_end = kTokens * kHeads});
  return output;
}

// Both kernels round the same numbers to bfloat16 (weights to 2^-8 of themselves, with values up to
// 1), and otherwise differ only in the order of float sums.
bool Agree(const AttentionKernel& a, const AttentionKernel& b) {
  std::vector<float> first;
  std::vector<float> second;
  std::thread own([&] {  // The kernels' scratch ends with this thread.
    first = SmallAttention(a);
    second = SmallAttention(b);
  });
  own.join();
  for (size_t n = 0; n < first.size(); ++n) {
    if (!(std::abs(first[n] - second[n]) <= 0x1p-6f)) return false;
  }
  return true;
}

}  // namespace

const AttentionKernel* AmxAttentionKernel() {
  static constexpr AttentionKernel kKernel = TileKernel<AmxTiles>("AMX_BF16");
  static const bool usable = [] {
    const AttentionKernel* proven = Avx512Bf16AttentionKernel();
    return proven != nullptr && AmxUsable() && Agree(kKernel, *proven);
  }();
  return usable ? &kKernel : nullptr;
}

}  // namespace structattn

#else  // Not x86-64 Linux.

namespace structattn {
const AttentionKernel* AmxAttentionKernel() { return nullptr; }
}  // namespace structattn

#endif
