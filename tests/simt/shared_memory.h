// The shared memory of one thread block, with a shadow of every byte: which threads wrote and read
// it last, and whether a copy into it is under way. It never touches global memory.
#ifndef STRUCTATTN_TESTS_SIMT_SHARED_MEMORY_H_
#define STRUCTATTN_TESTS_SIMT_SHARED_MEMORY_H_

#include <cstdint>
#include <cstring>
#include <vector>

#include "tests/simt/context.h"

namespace structattn::simt {

inline constexpr int kMaxSharedBytes = 99 * 1024;  // For a thread block, on every architecture.
inline constexpr int kCopyBytes = 16;

class SharedMemory {
 public:
  explicit SharedMemory(Context* context)
      : context_(*context),
        bytes_(kMaxSharedBytes),
        shadow_(kMaxSharedBytes),
        pending_(kMaxSharedBytes / kCopyBytes) {}

  // Begins a thread block with `size` bytes. All are poisoned: 0xFF is NaN in every storage type.
  void Begin(int size);

  // Each access is checked and reported; one that is out of bounds or misaligned then reads poison
  // or writes nothing. `reader` is the running thread, or kSeveralThreads for a warp's common read.
  void Read(int offset, int size, Place place, void* to, int reader) {
    if (!Allowed(offset, size, place)) [[unlikely]] {
      std::memset(to, 0xff, size);
      return;
    }
    NoteRead(offset, size, place, reader);
    std::memcpy(to, bytes_.data() + offset, size);
  }
  void Write(int offset, int size, Place place, const void* from) {
    if (!Allowed(offset, size, place)) [[unlikely]]
      return;
    NoteWrite(offset, size, place, ReportKind::kSharedRace);
    std::memcpy(bytes_.data() + offset, from, size);
  }

  // Begins a copy into 16 bytes, and returns false if it cannot. Until it ends, no thread may touch
  // them.
  bool BeginCopy(int offset, Place place);
  // Ends a copy with these bytes, which the running thread writes.
  void EndCopy(int offset, Place place, const void* from);

 private:
  // The copy under way into 16 bytes, if any.
  struct Pending {
    Place place;
    int thread;
    bool active = false;
  };

  bool Allowed(int offset, int size, Place place);
  void NoteRead(int offset, int size, Place place, int reader);
  void NoteWrite(int offset, int size, Place place, ReportKind race);
  void ReportPending(ReportKind kind, int offset, Place place);
  void ReportRace(ReportKind kind, int offset, Place place, const LastAccess& other);
  void ReportUninitialized(int offset, Place place);

  Context& context_;
  std::vector<unsigned char> bytes_;
  std::vector<ShadowByte> shadow_;
  std::vector<Pending> pending_;
  int size_ = 0;
};

}  // namespace structattn::simt

#endif  // STRUCTATTN_TESTS_SIMT_SHARED_MEMORY_H_
