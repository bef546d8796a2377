// How many thread blocks of a kernel fit a multiprocessor, by the arithmetic of the CUDA toolkit's
// own cuda_occupancy.h, which never asks a device.
//
// The program reads lines `arch registers threads static_shared dynamic_shared`, where arch is
// 80 or 86 and so on, and writes a line with the number of thread blocks for each, in order.
#include <cuda_occupancy.h>

#include <cstdio>

namespace {

// Source: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". Shared
// memory is in bytes, and the runtime keeps 1024 of every thread block for itself.
struct Multiprocessor {
  int arch;
  int threads;
  size_t shared_bytes;
  size_t block_shared_bytes;
};
constexpr Multiprocessor kMultiprocessors[] = {
    {80, 2048, 164 << 10, 163 << 10},  {86, 1536, 100 << 10, 99 << 10},
    {89, 1536, 100 << 10, 99 << 10},   {90, 2048, 228 << 10, 227 << 10},
    {100, 2048, 228 << 10, 227 << 10}, {120, 1536, 100 << 10, 99 << 10}};

struct Kernel {
  int arch;
  int registers;
  int threads;
  size_t static_shared_bytes;
  size_t dynamic_shared_bytes;
};

int Blocks(const Multiprocessor& sm, const Kernel& kernel) {
  cudaOccDeviceProp device;
  device.computeMajor = sm.arch / 10;
  device.computeMinor = sm.arch % 10;
  device.maxThreadsPerBlock = 1024;
  device.maxThreadsPerMultiprocessor = sm.threads;
  device.regsPerBlock = 65536;
  device.regsPerMultiprocessor = 65536;
  device.warpSize = 32;
  device.sharedMemPerBlock = 48 << 10;
  device.sharedMemPerMultiprocessor = sm.shared_bytes;
  device.numSms = 1;
  device.sharedMemPerBlockOptin = sm.block_shared_bytes;
  device.reservedSharedMemPerBlock = 1 << 10;

  cudaOccFuncAttributes function;
  function.maxThreadsPerBlock = kernel.threads;
  function.numRegs = kernel.registers;
  function.sharedSizeBytes = kernel.static_shared_bytes;
  function.partitionedGCConfig = PARTITIONED_GC_OFF;
  function.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
  function.maxDynamicSharedSizeBytes = kernel.dynamic_shared_bytes;
  function.numBlockBarriers = 1;

  cudaOccDeviceState state;
  state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
  cudaOccResult result;
  const cudaOccError error = cudaOccMaxActiveBlocksPerMultiprocessor(
      &result, &device, &function, &state, kernel.threads, kernel.dynamic_shared_bytes);
  return error == CUDA_OCC_SUCCESS ? result.activeBlocksPerMultiprocessor : 0;
}

}  // namespace

int main() {
  Kernel kernel;
  while (std::scanf("%d %d %d %zu %zu", &kernel.arch, &kernel.registers, &kernel.threads,
                    &kernel.static_shared_bytes, &kernel.dynamic_shared_bytes) == 5) {
    int blocks = 0;
    for (const Multiprocessor& sm : kMultiprocessors) {
      if (sm.arch == kernel.arch) blocks = Blocks(sm, kernel);
    }
    std::printf("%d\n", blocks);
  }
}
