// The device behind tests/simt/simt.h where there is one: the tests of the emulator run unchanged,
// and their launches go to the GPU. Written without a GPU at hand; it has never run.
//
// Memory that a test registers is mapped for the length of each launch, so kernels read and write
// the test's own buffers over the bus, at their host addresses. That is slow, and finds no access
// past a buffer within its page: the emulator finds those. It shows that the machine code computes
// the same as the reference, always with the same bits, on real hardware.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels/activation/silu_mul.h"
#include "kernels/attention/attention.h"
#include "kernels/cuda/ops.h"
#include "kernels/embedding/embedding.h"
#include "kernels/linear/linear.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/rope/rope_kv_write.h"
#include "kernels/sampling/pick_tokens.h"
#include "tests/simt/simt.h"

namespace structattn {
namespace {

constexpr uintptr_t kPageBytes = 4096;

void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

std::mutex& RegistryMutex() {
  static std::mutex mutex;
  return mutex;
}
// The bytes of each registered range, indexed by its begin.
std::map<uintptr_t, size_t>& Registry() {
  static std::map<uintptr_t, size_t> registry;
  return registry;
}

// The pages of all registered ranges, mapped for the device while it lives. Ranges may share a
// page, and a page may be mapped once only.
class MappedMemory {
 public:
  MappedMemory() {
    const std::lock_guard lock(RegistryMutex());
    uintptr_t begin = 0;
    uintptr_t end = 0;
    for (const auto& [address, bytes] : Registry()) {
      const uintptr_t first = address / kPageBytes * kPageBytes;
      if (first > end) {
        Map(begin, end);
        begin = first;
      }
      end = std::max(end, (address + bytes + kPageBytes - 1) / kPageBytes * kPageBytes);
    }
    Map(begin, end);
  }
  ~MappedMemory() {
    for (void* begin : mapped_) cudaHostUnregister(begin);
  }
  MappedMemory(const MappedMemory&) = delete;
  MappedMemory& operator=(const MappedMemory&) = delete;

 private:
  void Map(uintptr_t begin, uintptr_t end) {
    if (begin == end) return;
    void* const host = reinterpret_cast<void*>(begin);
    Check(cudaHostRegister(host, end - begin, cudaHostRegisterMapped), "cudaHostRegister");
    mapped_.push_back(host);
    void* device = nullptr;
    Check(cudaHostGetDevicePointer(&device, host, 0), "cudaHostGetDevicePointer");
    if (device != host) throw std::runtime_error("this GPU sees host memory at other addresses");
  }

  std::vector<void*> mapped_;
};

template <typename Params>
void RunOnDevice(void (*op)(const KernelContext&, const Params&), const Params& params) {
  const MappedMemory mapped;
  op({.device = DeviceKind::kCuda}, params);
  Check(cudaDeviceSynchronize(), "kernel");
}

constexpr CudaOps kOpsOnDevice = {
    .attention = [](const KernelContext&,
                    const AttentionParams& p) { RunOnDevice(CompiledCudaOps()->attention, p); },
    .embedding = [](const KernelContext&,
                    const EmbeddingParams& p) { RunOnDevice(CompiledCudaOps()->embedding, p); },
    .linear = [](const KernelContext&,
                 const LinearParams& p) { RunOnDevice(CompiledCudaOps()->linear, p); },
    .pick_tokens =
        [](const KernelContext&, const PickTokensParams& p) {
          RunOnDevice(CompiledCudaOps()->pick_tokens, p);
        },
    .rms_norm = [](const KernelContext&,
                   const RmsNormParams& p) { RunOnDevice(CompiledCudaOps()->rms_norm, p); },
    .rope_kv_write =
        [](const KernelContext&, const RopeKvWriteParams& p) {
          RunOnDevice(CompiledCudaOps()->rope_kv_write, p);
        },
    .silu_mul = [](const KernelContext&,
                   const SiluMulParams& p) { RunOnDevice(CompiledCudaOps()->silu_mul, p); },
    .attention_name = "cuda/tests"};

}  // namespace

const CudaOps* EmulatedCudaOps() { return &kOpsOnDevice; }

namespace simt {

void RegisterMemory(const void* begin, size_t bytes, Access) {
  const std::lock_guard lock(RegistryMutex());
  Registry()[reinterpret_cast<uintptr_t>(begin)] = bytes;
}
void UnregisterMemory(const void* begin) {
  const std::lock_guard lock(RegistryMutex());
  Registry().erase(reinterpret_cast<uintptr_t>(begin));
}

// The device chooses its own schedule, and reports errors by exceptions only.
void SetSeed(uint64_t) {}
bool CountsWork() { return false; }
std::vector<Report> TakeReports() { return {}; }
std::string Describe(std::span<const Report>) { return ""; }
std::vector<LaunchCounts> TakeLaunches() { return {}; }

}  // namespace simt
}  // namespace structattn
