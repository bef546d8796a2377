// See memory_read.h.
#include "tests/bench/memory_read.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <new>
#include <vector>

#include "kernels/check.h"

namespace structattn {
namespace {

constexpr int64_t kHugePageBytes = int64_t{2} << 20;
// A part is what one thread reads at a time: long enough that its start costs nothing.
constexpr int64_t kPartBytes = int64_t{1} << 20;
constexpr int64_t kPartWords = kPartBytes / 8;

#if defined(__x86_64__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
uint64_t
SumOfPart(const uint64_t* from) {
  using Vector = uint64_t __attribute__((vector_size(64)));
  const Vector* vectors = reinterpret_cast<const Vector*>(from);
  Vector sums[4] = {};
  for (int64_t i = 0; i < kPartBytes / 64; i += 4) {
    sums[0] += vectors[i];
    sums[1] += vectors[i + 1];
    sums[2] += vectors[i + 2];
    sums[3] += vectors[i + 3];
  }
  const Vector all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  uint64_t sum = 0;
  for (int lane = 0; lane < 8; ++lane) sum += all[lane];
  return sum;
}

}  // namespace

MemoryRead::MemoryRead(ThreadPool& pool, int64_t bytes)
    : pool_(pool), parts_(std::max<int64_t>(1, bytes / kPartBytes)) {
  void* data = nullptr;
  const int64_t size = parts_ * kPartBytes;
  if (posix_memalign(&data, kHugePageBytes, size) != 0) throw std::bad_alloc();
  madvise(data, size, MADV_HUGEPAGE);  // A hint.
  words_ = static_cast<uint64_t*>(data);
  std::fill_n(words_, parts_ * kPartWords, uint64_t{1});
}

MemoryRead::~MemoryRead() { std::free(words_); }

double MemoryRead::BytesPerSecond(int rounds) {
  std::vector<uint64_t> sums(parts_);
  double best = 0.0;
  for (int round = 0; round < rounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    pool_.ParallelFor(parts_,
                      [&](int64_t part) { sums[part] = SumOfPart(words_ + part * kPartWords); });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, static_cast<double>(parts_ * kPartBytes) / seconds.count());
    for (const uint64_t sum : sums) STRUCTATTN_CHECK(sum == kPartWords);
  }
  return best;
}

}  // namespace structattn
