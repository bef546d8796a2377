// Cuts the rows of an element-wise op into items that are worth a hand-over between threads. It is
// not meant for linear or attention, which cut their work by what they know of it.
#ifndef STRUCTATTN_KERNELS_PARALLEL_ROWS_H_
#define STRUCTATTN_KERNELS_PARALLEL_ROWS_H_

#include <algorithm>
#include <cstdint>

#include "kernels/thread_pool.h"

namespace structattn {

// Calls rows_item(begin, end) for disjoint ranges that cover [0, rows). A range holds some 2,000
// elements (a microsecond or two), so the row of a single decoded token stays on the calling
// thread.
template <typename RowsItem>
void ParallelForRows(ThreadPool& pool, int64_t rows, int64_t elements_per_row,
                     const RowsItem& rows_item) {
  constexpr int64_t kElementsPerItem = 2 * 1024;
  const int64_t per_item =
      std::max<int64_t>(1, kElementsPerItem / std::max<int64_t>(1, elements_per_row));
  const int64_t items = (rows + per_item - 1) / per_item;
  pool.ParallelFor(items, [&](int64_t item) {
    rows_item(item * per_item, std::min(rows, (item + 1) * per_item));
  });
}

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_PARALLEL_ROWS_H_
