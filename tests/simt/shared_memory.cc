// The checks of shared memory. Each access reports at most once, for its first bad byte.
#include "tests/simt/shared_memory.h"

#include <algorithm>

namespace structattn::simt {

void SharedMemory::Begin(int size) {
  size_ = size;
  std::memset(bytes_.data(), 0xff, size);
  std::fill_n(pending_.begin(), (size + kCopyBytes - 1) / kCopyBytes, Pending());
}

bool SharedMemory::Allowed(int offset, int size, Place place) {
  const char* what = nullptr;
  ReportKind kind = ReportKind::kSharedBounds;
  if (offset < 0 || offset > size_ - size) {
    what = " bytes at offset ";
  } else if (offset % size != 0) {
    kind = ReportKind::kSharedMisaligned;
    what = " bytes at offset ";
  }
  if (what == nullptr) return true;
  context_.Add(
      kind, {{context_.thread, place}},
      std::to_string(size) + what + std::to_string(offset) + " of " + std::to_string(size_));
  return false;
}

void SharedMemory::NoteRead(int offset, int size, Place place, int reader) {
  if (pending_[offset / kCopyBytes].active) [[unlikely]] {
    return ReportPending(ReportKind::kPendingCopyRead, offset, place);
  }
  const Clock clock = context_.clock;
  const LastAccess* racing = nullptr;
  bool uninitialized = false;
  for (ShadowByte* byte = &shadow_[offset]; byte < &shadow_[offset] + size; ++byte) {
    if (byte->write.interval == clock.now && byte->write.thread != reader) racing = &byte->write;
    uninitialized |= byte->write.interval < clock.block_first;
    const bool several = byte->read.interval == clock.now && byte->read.thread != reader;
    byte->read = {place, clock.now, several ? kSeveralThreads : static_cast<uint16_t>(reader)};
  }
  if (racing != nullptr) [[unlikely]] {
    ReportRace(ReportKind::kSharedRace, offset, place, *racing);
  }
  if (uninitialized) [[unlikely]]
    ReportUninitialized(offset, place);
}

void SharedMemory::NoteWrite(int offset, int size, Place place, ReportKind race) {
  if (pending_[offset / kCopyBytes].active) [[unlikely]] {
    return ReportPending(ReportKind::kPendingCopyWrite, offset, place);
  }
  const uint32_t now = context_.clock.now;
  const int writer = context_.thread;
  LastAccess racing = {};
  for (ShadowByte* byte = &shadow_[offset]; byte < &shadow_[offset] + size; ++byte) {
    if (byte->write.interval == now && byte->write.thread != writer) racing = byte->write;
    if (byte->read.interval == now && byte->read.thread != writer) racing = byte->read;
    byte->write = {place, now, static_cast<uint16_t>(writer)};
  }
  if (racing.interval != 0) [[unlikely]]
    ReportRace(race, offset, place, racing);
}

bool SharedMemory::BeginCopy(int offset, Place place) {
  if (!Allowed(offset, kCopyBytes, place)) return false;
  Pending& pending = pending_[offset / kCopyBytes];
  NoteWrite(offset, kCopyBytes, place, ReportKind::kCopyRace);
  if (pending.active) return false;  // It is reported, and the earlier copy keeps the bytes.
  pending = {place, context_.thread, true};
  std::memset(bytes_.data() + offset, 0xff, kCopyBytes);
  return true;
}

void SharedMemory::EndCopy(int offset, Place place, const void* from) {
  pending_[offset / kCopyBytes].active = false;
  const LastAccess landed = {place, context_.clock.now, static_cast<uint16_t>(context_.thread)};
  for (int i = 0; i < kCopyBytes; ++i) shadow_[offset + i].write = landed;
  std::memcpy(bytes_.data() + offset, from, kCopyBytes);
}

void SharedMemory::ReportPending(ReportKind kind, int offset, Place place) {
  const Pending& pending = pending_[offset / kCopyBytes];
  context_.Add(kind, {{context_.thread, place}, {pending.thread, pending.place}},
               "offset " + std::to_string(offset));
}

void SharedMemory::ReportRace(ReportKind kind, int offset, Place place, const LastAccess& other) {
  context_.Add(kind, {{context_.thread, place}, {other.thread, other.place}},
               "offset " + std::to_string(offset));
}

void SharedMemory::ReportUninitialized(int offset, Place place) {
  context_.Add(ReportKind::kUninitializedRead, {{context_.thread, place}},
               "offset " + std::to_string(offset));
}

}  // namespace structattn::simt
