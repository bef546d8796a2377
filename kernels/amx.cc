// Asks the CPU and Linux for AMX. No tile instruction is executed here.
#include "kernels/amx.h"

#if defined(__x86_64__) && defined(__linux__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace structattn {
namespace {

bool CpuHasTiles() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kBf16 = 1u << 22;
  constexpr unsigned kTile = 1u << 24;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (edx & kBf16) != 0 && (edx & kTile) != 0;
}

// Linux gives tile registers only to processes that ask. All their threads may use them then.
bool SystemGrantsTiles() {
  constexpr int64_t kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int64_t kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool AmxUsable() {
  static const bool usable = CpuHasTiles() && SystemGrantsTiles();
  return usable;
}

}  // namespace structattn

#else  // Not x86-64 Linux.

namespace structattn {
bool AmxUsable() { return false; }
}  // namespace structattn

#endif
