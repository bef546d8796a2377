// Embedding on the CPU: a copy or a widening of one table row per id. The loops are plain, because
// memory binds them and a prompt has few rows.
#include "kernels/embedding/embedding.h"
#include "kernels/parallel_rows.h"

namespace structattn {
namespace {

template <typename T>
void GatherRows(const EmbeddingParams& params, int64_t begin, int64_t end) {
  const T* table = static_cast<const T*>(params.table);
  for (int64_t row = begin; row < end; ++row) {
    const T* from = table + params.ids[row] * params.columns;
    float* to = params.output + row * params.columns;
    for (int64_t i = 0; i < params.columns; ++i) to[i] = ToFloat(from[i]);
  }
}

void GatherRows(const EmbeddingParams& params, int64_t begin, int64_t end) {
  switch (params.table_dtype) {
    case DType::kFloat32:
      return GatherRows<float>(params, begin, end);
    case DType::kBfloat16:
      return GatherRows<Bfloat16>(params, begin, end);
    case DType::kFloat16:
      return GatherRows<Float16>(params, begin, end);
  }
}

}  // namespace

void EmbeddingCpu(ThreadPool& pool, const EmbeddingParams& params) {
  ParallelForRows(pool, params.rows, params.columns,
                  [&](int64_t begin, int64_t end) { GatherRows(params, begin, end); });
}

}  // namespace structattn
