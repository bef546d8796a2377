// The registry of memory that kernels may touch, with a shadow of every writable byte. simt.h
// offers the registration; the accesses are Machine's alone.
#ifndef STRUCTATTN_TESTS_SIMT_GLOBAL_MEMORY_H_
#define STRUCTATTN_TESTS_SIMT_GLOBAL_MEMORY_H_

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "tests/simt/context.h"

namespace structattn::simt {

class GlobalMemory {
 public:
  explicit GlobalMemory(Context* context) : context_(*context) {}

  void Register(const void* begin, size_t bytes, Access access);
  void Unregister(const void* begin);

  // A launch holds it from begin to end, so that ranges neither come nor go under a kernel.
  [[nodiscard]] std::unique_lock<std::mutex> Lock() { return std::unique_lock(mutex_); }

  // Accesses of the running thread, which holds the lock. They are checked and reported, and one
  // that is not allowed reads poison or writes nothing.
  void Read(const void* from, int size, Place place, void* to) {
    if (NoteRead(from, size, place)) [[likely]] {
      std::memcpy(to, from, size);
    } else {
      std::memset(to, 0xff, size);
    }
  }
  void Write(void* to, int size, Place place, const void* from) {
    if (NoteWrite(to, size, place)) [[likely]]
      std::memcpy(to, from, size);
  }
  // Whether the read is allowed.
  bool NoteRead(const void* from, int size, Place place);

 private:
  struct Freed {
    void operator()(ShadowByte* shadow) const { std::free(shadow); }
  };
  struct Range {
    uintptr_t begin = 0;
    uintptr_t end = 0;
    Access access = Access::kReadOnly;
    // One for each byte of a writable range that a kernel has touched. They come from calloc,
    // because the system then gives zero pages only where bytes are touched.
    std::unique_ptr<ShadowByte[], Freed> shadow;
  };

  bool NoteWrite(void* to, int size, Place place);
  // The range that holds the access, or null after a report.
  Range* Find(const void* at, int size, Place place);
  Range* Search(uintptr_t address, int size);
  ShadowByte* Shadow(Range& range, const void* at);
  // Whether an earlier access of this launch is not ordered before the running thread.
  bool Races(const LastAccess& earlier) const;
  void ReportRace(const void* at, Place place, const LastAccess& other);

  Context& context_;
  std::mutex mutex_;
  std::map<uintptr_t, Range> ranges_;  // Disjoint, indexed by first byte.
  static constexpr int kRecent = 64;
  Range* recent_[kRecent] = {};  // The range that an address of this hash was last found in.
};

}  // namespace structattn::simt

#endif  // STRUCTATTN_TESTS_SIMT_GLOBAL_MEMORY_H_
