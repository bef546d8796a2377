// Rows of a matrix, shared out to threads while a checkpoint is read. Decides nothing.
#ifndef STRUCTATTN_SERVER_MODEL_PARALLEL_ROWS_H_
#define STRUCTATTN_SERVER_MODEL_PARALLEL_ROWS_H_

#include <algorithm>
#include <cstdint>

#include "kernels/thread_pool.h"

namespace structattn {

// Calls convert(row) once for each row of [rows, columns], on the pool's threads where there is
// one.
template <typename Convert>
void ForEachRow(int64_t rows, int64_t columns, ThreadPool* pool, const Convert& convert) {
  constexpr int64_t kElementsPerItem = int64_t{1} << 16;
  const int64_t rows_per_item = std::max<int64_t>(1, kElementsPerItem / columns);
  const auto item = [&](int64_t index) {
    const int64_t end = std::min(rows, (index + 1) * rows_per_item);
    for (int64_t row = index * rows_per_item; row < end; ++row) convert(row);
  };
  const int64_t items = (rows + rows_per_item - 1) / rows_per_item;
  if (pool != nullptr) return pool->ParallelFor(items, item);
  for (int64_t index = 0; index < items; ++index) item(index);
}

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_PARALLEL_ROWS_H_
