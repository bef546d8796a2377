// Prints, for race_test.py, one small launch of each kernel: a line
//   KERNEL source grid_x grid_y shared_bytes {offset:type:value}
// with the scalars among the kernel's parameters, by their offset. Pointers are not printed, and
// stand for distinct arrays; only null ones are, as `null`.
#include <cstddef>
#include <cstdio>
#include <initializer_list>
#include <string>

#include "kernels/activation/silu_mul.h"
#include "kernels/attention/attention.h"
#include "kernels/embedding/embedding.h"
#include "kernels/linear/linear.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/rope/rope_kv_write.h"
#include "kernels/sampling/pick_tokens.h"

namespace structattn {
namespace {

struct Launch {
  const char* kernel;
  const char* source;
  int grid_x;
  int grid_y;
  int shared_bytes;
};

std::string Scalar(size_t offset, const char* type, const std::string& value) {
  return std::to_string(offset) + ":" + type + ":" + value;
}
std::string S64(size_t offset, int64_t value) {
  return Scalar(offset, "s64", std::to_string(value));
}
std::string S32(size_t offset, int32_t value) {
  return Scalar(offset, "s32", std::to_string(value));
}
std::string Null(size_t offset) { return Scalar(offset, "null", "0"); }
// Marks a pointer that the verifier cannot tell from an integer by itself.
std::string Pointer(size_t offset) { return Scalar(offset, "pointer", "0"); }

void Print(const Launch& launch, std::initializer_list<std::string> scalars) {
  std::printf("%s\t%s\t%d\t%d\t%d", launch.kernel, launch.source, launch.grid_x, launch.grid_y,
              launch.shared_bytes);
  for (const std::string& scalar : scalars) std::printf("\t%s", scalar.c_str());
  std::printf("\n");
}

void PrintRowWise() {
  Print({"RmsNormKernel<Bfloat16, 4>", "norm/rms_norm", 2, 1, 32},
        {S64(offsetof(RmsNormParams, rows), 2), S64(offsetof(RmsNormParams, columns), 1024)});
  Print({"SiluMulKernel<Bfloat16, 4>", "activation/silu_mul", 4, 1, 0},
        {S64(offsetof(SiluMulParams, rows), 2), S64(offsetof(SiluMulParams, columns), 1536)});
  Print({"EmbeddingKernel<Bfloat16, 4>", "embedding/embedding", 4, 1, 0},
        {Pointer(offsetof(EmbeddingParams, table)), S64(offsetof(EmbeddingParams, rows), 2),
         S64(offsetof(EmbeddingParams, columns), 576)});
  Print({"LogitsPartKernel<4>", "sampling/pick_tokens", 4, 1, 192},
        {S64(offsetof(PickTokensParams, rows), 2),
         S64(offsetof(PickTokensParams, vocabulary), 5000)});
  Print({"PickTokensKernel<4>", "sampling/pick_tokens", 2, 1, 35520},
        {Pointer(offsetof(PickTokensParams, logits)), Null(offsetof(PickTokensParams, rules)),
         S64(offsetof(PickTokensParams, rows), 2),
         S64(offsetof(PickTokensParams, vocabulary), 5000)});
}

void PrintRope() {
  constexpr size_t kKv = offsetof(RopeKvWriteParams, kv);
  Print({"RopeKvWriteKernel<Bfloat16>", "rope/rope_kv_write", 2, 1, 0},
        {Null(offsetof(RopeKvWriteParams, query_norm)), Null(offsetof(RopeKvWriteParams, key_norm)),
         S32(kKv + offsetof(KvLayerView, block_size), 16),
         S32(kKv + offsetof(KvLayerView, kv_heads), 3),
         S32(kKv + offsetof(KvLayerView, head_dim), 64), S32(offsetof(RopeKvWriteParams, heads), 9),
         S64(offsetof(RopeKvWriteParams, tokens), 2), S32(sizeof(RopeKvWriteParams), 8)});
}

void PrintInt8Linear() {
  constexpr size_t kWeight = offsetof(LinearParams, weight);
  const std::initializer_list<std::string> scalars = {
      Pointer(offsetof(LinearParams, input)),
      Pointer(kWeight + offsetof(LinearWeight, codes)),
      Pointer(kWeight + offsetof(LinearWeight, scales)),
      Scalar(offsetof(LinearParams, accumulate), "u8", "0"),
      S64(offsetof(LinearParams, rows), 5),
      S64(kWeight + offsetof(LinearWeight, outputs), 40),
      S64(kWeight + offsetof(LinearWeight, inputs), 192)};
  Print({"Int8LinearFloatKernel", "linear/linear", 5, 3, 0}, scalars);
  Print({"Int8LinearKernel<Bfloat16, 16>", "linear/linear", 1, 2, 29696}, scalars);
  Print({"Int8LinearKernel<Bfloat16, 64>", "linear/linear", 1, 1, 50176}, scalars);
  Print({"Int8LinearKernel<Bfloat16, 96>", "linear/linear", 1, 1, 41984}, scalars);
}

void PrintAttention() {
  constexpr size_t kKv = offsetof(AttentionParams, kv);
  const std::initializer_list<std::string> scalars = {
      Pointer(offsetof(AttentionParams, tiles)),
      Pointer(offsetof(AttentionParams, generated)),
      Pointer(offsetof(AttentionParams, splits)),
      S32(kKv + offsetof(KvLayerView, block_size), 16),
      S32(kKv + offsetof(KvLayerView, kv_heads), 3),
      S32(kKv + offsetof(KvLayerView, head_dim), 64),
      S32(offsetof(AttentionParams, heads), 9),
      S32(offsetof(AttentionParams, block_table_stride), 8),
      S32(offsetof(AttentionParams, tile_count), 2),
      S32(offsetof(AttentionParams, generated_count), 2),
      S32(offsetof(AttentionParams, split_count), 2)};
  Print({"FlashAttentionKernel<Bfloat16, 64, false>", "attention/attention", 6, 1, 33280}, scalars);
  Print({"FlashAttentionKernel<Bfloat16, 64, true>", "attention/attention", 6, 1, 33280}, scalars);
  Print({"MergeSplitsKernel<Bfloat16, 64>", "attention/attention", 5, 1, 0}, scalars);
}

}  // namespace
}  // namespace structattn

int main() {
  structattn::PrintRowWise();
  structattn::PrintRope();
  structattn::PrintInt8Linear();
  structattn::PrintAttention();
}
