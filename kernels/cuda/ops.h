// The CUDA side of every op as one table, and where to find it. Only the op's seam
// (norm/rms_norm.cc,
// ...) asks for it. Names the parameters of every op and defines none, so that no op's header is
// included here.
#ifndef STRUCTATTN_KERNELS_CUDA_OPS_H_
#define STRUCTATTN_KERNELS_CUDA_OPS_H_

#include "kernels/context.h"

namespace structattn {

struct AttentionParams;
struct EmbeddingParams;
struct Int8LinearParams;
struct PickTokensParams;
struct RmsNormParams;
struct RopeKvWriteParams;
struct SiluMulParams;

struct CudaOps {
  void (*attention)(const KernelContext&, const AttentionParams&);
  void (*embedding)(const KernelContext&, const EmbeddingParams&);
  void (*int8_linear)(const KernelContext&, const Int8LinearParams&);
  void (*pick_tokens)(const KernelContext&, const PickTokensParams&);
  void (*rms_norm)(const KernelContext&, const RmsNormParams&);
  void (*rope_kv_write)(const KernelContext&, const RopeKvWriteParams&);
  void (*silu_mul)(const KernelContext&, const SiluMulParams&);
  const char* attention_name;  // For provenance.
};

// The kernels built by nvcc; null in a build without CUDA compiler (no_cuda.cc).
const CudaOps* CompiledCudaOps();

// The same sources on the host emulator. Defined in programs of the tests that link tests/simt;
// elsewhere the function's address is null.
[[gnu::weak]] const CudaOps* EmulatedCudaOps();

// The table of a device that is not the CPU. Asking for one that this program lacks is a broken
// invariant: options refuse such a device before a model is loaded.
const CudaOps& CudaOpsFor(DeviceKind device);

// Whether this program has kernels for the device.
bool HasOps(DeviceKind device);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_CUDA_OPS_H_
