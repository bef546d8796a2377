// output[i] = table[ids[i]], widened to float: the embedding gather. Ids are never checked here.
#ifndef STRUCTATTN_KERNELS_EMBEDDING_EMBEDDING_H_
#define STRUCTATTN_KERNELS_EMBEDDING_EMBEDDING_H_

#include <cstdint>

#include "kernels/context.h"
#include "kernels/dtype.h"

namespace structattn {

struct EmbeddingParams {
  const void* table = nullptr;  // [vocabulary, columns] in table_dtype
  DType table_dtype = DType::kFloat32;
  const int32_t* ids = nullptr;  // [rows], each a row of the table
  float* output = nullptr;       // [rows, columns]
  int64_t rows = 0;
  int64_t columns = 0;
};

void Embedding(const KernelContext& context, const EmbeddingParams& params);

// The CPU side of Embedding.
void EmbeddingCpu(ThreadPool& pool, const EmbeddingParams& params);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_EMBEDDING_EMBEDDING_H_
