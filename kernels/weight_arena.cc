// See weight_arena.h.
#include "kernels/weight_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace structattn {
namespace {

constexpr int64_t kHugePageBytes = int64_t{2} << 20;
// Untouched pages cost nothing: what a chunk leaves unused is address space.
constexpr int64_t kChunkBytes = int64_t{64} << 20;
constexpr int64_t kAlignment = 64;

constexpr int64_t RoundUp(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

std::shared_ptr<char> NewChunk(int64_t bytes) {
  void* data = nullptr;
  if (posix_memalign(&data, kHugePageBytes, bytes) != 0) throw std::bad_alloc();
  madvise(data, bytes, MADV_HUGEPAGE);  // A hint: where it is refused, pages stay small.
  return {static_cast<char*>(data), [](char* chunk) { std::free(chunk); }};
}

}  // namespace

std::shared_ptr<void> WeightArena::Allocate(int64_t bytes) {
  if (chunk_ == nullptr || bytes > chunk_bytes_ - used_bytes_) {
    const int64_t chunk_bytes = std::max(kChunkBytes, RoundUp(bytes, kHugePageBytes));
    chunk_ = NewChunk(chunk_bytes);
    chunk_bytes_ = chunk_bytes;
    used_bytes_ = 0;
  }
  char* const data = chunk_.get() + used_bytes_;
  used_bytes_ = std::min(chunk_bytes_, used_bytes_ + RoundUp(bytes, kAlignment));
  return {chunk_, data};
}

}  // namespace structattn
