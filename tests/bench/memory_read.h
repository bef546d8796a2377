// How fast all threads together read memory, measured now: what a decode step, which is little but
// reading weights, can reach at most. Benches print their share of it.
#ifndef STRUCTATTN_TESTS_BENCH_MEMORY_READ_H_
#define STRUCTATTN_TESTS_BENCH_MEMORY_READ_H_

#include <cstdint>

#include "kernels/thread_pool.h"

namespace structattn {

// A buffer like the weights of a model: as large, and in huge pages where the system gives them.
class MemoryRead {
 public:
  MemoryRead(ThreadPool& pool, int64_t bytes);
  ~MemoryRead();
  MemoryRead(const MemoryRead&) = delete;
  MemoryRead& operator=(const MemoryRead&) = delete;

  // Bytes per second, the best of `rounds` reads of the whole buffer.
  double BytesPerSecond(int rounds);

 private:
  ThreadPool& pool_;
  const int64_t parts_;
  uint64_t* words_;
};

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_BENCH_MEMORY_READ_H_
