// The CUDA side of every op as one table, and where to find it. Only an op's seam, such as
// norm/rms_norm.cc, looks it up. The parameters of every op are named and none is defined, so that
// no op's header is included here.
#ifndef STRUCTATTN_KERNELS_CUDA_OPS_H_
#define STRUCTATTN_KERNELS_CUDA_OPS_H_

#include "kernels/context.h"

namespace structattn {

struct AttentionParams;
struct EmbeddingParams;
struct LinearParams;
struct PickTokensParams;
struct RmsNormParams;
struct RopeKvWriteParams;
struct SiluMulParams;

struct CudaOps {
  void (*attention)(const KernelContext&, const AttentionParams&);
  void (*embedding)(const KernelContext&, const EmbeddingParams&);
  void (*linear)(const KernelContext&, const LinearParams&);
  void (*pick_tokens)(const KernelContext&, const PickTokensParams&);
  void (*rms_norm)(const KernelContext&, const RmsNormParams&);
  void (*rope_kv_write)(const KernelContext&, const RopeKvWriteParams&);
  void (*silu_mul)(const KernelContext&, const SiluMulParams&);
  const char* attention_name;  // AttentionKernelName gives it.
};

// The kernels that nvcc has built. Null in a build without CUDA compiler (no_cuda.cc).
const CudaOps* CompiledCudaOps();

// The same sources on the host emulator. The function is defined in programs of the tests that link
// tests/simt; elsewhere its address is null.
[[gnu::weak]] const CudaOps* EmulatedCudaOps();

// The table of a device that is not the CPU. Asking for one that this program lacks is a broken
// invariant, because such a device is refused before a model is loaded.
const CudaOps& CudaOpsFor(DeviceKind device);

// Whether this program has kernels for the device.
bool HasOps(DeviceKind device);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_CUDA_OPS_H_
