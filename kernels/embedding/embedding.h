// output[i] = table[ids[i]]: the embedding gather, widened to float.
// Called once per step by server/model/decoder.
#ifndef STRUCTATTN_KERNELS_EMBEDDING_EMBEDDING_H_
#define STRUCTATTN_KERNELS_EMBEDDING_EMBEDDING_H_

#include <cstdint>

#include "kernels/context.h"
#include "kernels/dtype.h"

namespace structattn {

struct EmbeddingParams {
  const void* table = nullptr;  // [vocabulary, columns] of table_dtype.
  DType table_dtype = DType::kFloat32;
  const int32_t* ids = nullptr;  // [rows], each a valid row of the table.
  float* output = nullptr;       // [rows, columns]
  int64_t rows = 0;
  int64_t columns = 0;
};

void Embedding(const KernelContext& context, const EmbeddingParams& params);

// The CPU side, which Embedding calls for DeviceKind::kCpu.
void EmbeddingCpu(ThreadPool& pool, const EmbeddingParams& params);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_EMBEDDING_EMBEDDING_H_
