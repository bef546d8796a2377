// The checks of global memory. Each access reports at most once, for its first bad byte.
#include "tests/simt/global_memory.h"

#include <algorithm>
#include <cstdio>

#include "kernels/check.h"

namespace structattn::simt {
namespace {

std::string Hexadecimal(const void* at) {
  char text[32];
  std::snprintf(text, sizeof(text), "%p", at);
  return text;
}

}  // namespace

void GlobalMemory::Register(const void* begin, size_t bytes, Access access) {
  if (bytes == 0) return;
  const auto lock = Lock();
  const uintptr_t first = reinterpret_cast<uintptr_t>(begin);
  const auto after = ranges_.lower_bound(first);
  STRUCTATTN_CHECK(after == ranges_.end() || after->first >= first + bytes);
  STRUCTATTN_CHECK(after == ranges_.begin() || std::prev(after)->second.end <= first);
  ranges_[first] = {.begin = first, .end = first + bytes, .access = access, .shadow = nullptr};
}

void GlobalMemory::Unregister(const void* begin) {
  const auto lock = Lock();
  ranges_.erase(reinterpret_cast<uintptr_t>(begin));
  std::fill_n(recent_, kRecent, nullptr);
}

GlobalMemory::Range* GlobalMemory::Search(uintptr_t address, int size) {
  Range*& recent = recent_[(address >> 12) % kRecent];
  if (recent == nullptr || address < recent->begin || address >= recent->end) {
    const auto after = ranges_.upper_bound(address);
    if (after == ranges_.begin()) return nullptr;
    recent = &std::prev(after)->second;
  }
  return address + size <= recent->end ? recent : nullptr;
}

GlobalMemory::Range* GlobalMemory::Find(const void* at, int size, Place place) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(at);
  Range* range = Search(address, size);
  if (range == nullptr) [[unlikely]] {
    context_.Add(ReportKind::kGlobalBounds, {{context_.thread, place}},
                 std::to_string(size) + " bytes at " + Hexadecimal(at));
    return nullptr;
  }
  if (address % size != 0) [[unlikely]] {
    context_.Add(ReportKind::kGlobalMisaligned, {{context_.thread, place}},
                 std::to_string(size) + " bytes at " + Hexadecimal(at));
    return nullptr;
  }
  return range;
}

ShadowByte* GlobalMemory::Shadow(Range& range, const void* at) {
  if (range.shadow == nullptr) {
    range.shadow.reset(
        static_cast<ShadowByte*>(std::calloc(range.end - range.begin, sizeof(ShadowByte))));
    STRUCTATTN_CHECK(range.shadow != nullptr);
  }
  return range.shadow.get() + (reinterpret_cast<uintptr_t>(at) - range.begin);
}

bool GlobalMemory::Races(const LastAccess& earlier) const {
  const Clock& clock = context_.clock;
  if (earlier.interval < clock.launch_first) return false;
  return earlier.interval < clock.block_first || earlier.thread == kSeveralBlocks ||
         (earlier.interval == clock.now && earlier.thread != context_.thread);
}

bool GlobalMemory::NoteRead(const void* from, int size, Place place) {
  Range* range = Find(from, size, place);
  if (range == nullptr) return false;
  if (range->access == Access::kReadOnly) return true;
  const Clock clock = context_.clock;
  const LastAccess* racing = nullptr;
  ShadowByte* const first = Shadow(*range, from);
  for (ShadowByte* byte = first; byte < first + size; ++byte) {
    if (Races(byte->write)) racing = &byte->write;
    uint16_t reader = static_cast<uint16_t>(context_.thread);
    if (byte->read.interval >= clock.launch_first) {  // Earlier readers must not be forgotten.
      if (byte->read.interval < clock.block_first || byte->read.thread == kSeveralBlocks) {
        reader = kSeveralBlocks;
      } else if (byte->read.interval == clock.now && byte->read.thread != reader) {
        reader = kSeveralThreads;
      }
    }
    byte->read = {place, clock.now, reader};
  }
  if (racing != nullptr) [[unlikely]]
    ReportRace(from, place, *racing);
  return true;
}

bool GlobalMemory::NoteWrite(void* to, int size, Place place) {
  Range* range = Find(to, size, place);
  if (range == nullptr) return false;
  if (range->access == Access::kReadOnly) {
    context_.Add(ReportKind::kReadOnlyWrite, {{context_.thread, place}},
                 std::to_string(size) + " bytes at " + Hexadecimal(to));
    return false;
  }
  LastAccess racing = {};
  ShadowByte* const first = Shadow(*range, to);
  for (ShadowByte* byte = first; byte < first + size; ++byte) {
    if (Races(byte->write)) racing = byte->write;
    if (Races(byte->read)) racing = byte->read;
    byte->write = {place, context_.clock.now, static_cast<uint16_t>(context_.thread)};
  }
  if (racing.interval != 0) [[unlikely]]
    ReportRace(to, place, racing);
  return true;
}

void GlobalMemory::ReportRace(const void* at, Place place, const LastAccess& other) {
  context_.Add(ReportKind::kGlobalRace, {{context_.thread, place}, {other.thread, other.place}},
               "at " + Hexadecimal(at));
}

}  // namespace structattn::simt
