// Stands in for every CUDA op in a build without a CUDA compiler. Reaching one is a broken
// invariant: options refuse `--device cuda` on such a build before a model is loaded.
#include <cstdio>
#include <cstdlib>

#include "kernels/cuda_ops.h"

namespace structattn {
namespace {

[[noreturn]] void NotBuilt(const char* op) {
  std::fprintf(stderr, "%s on device cuda: this binary was built without CUDA kernels\n", op);
  std::abort();
}

}  // namespace

void AttentionCuda(const KernelContext&, const AttentionParams&) { NotBuilt("Attention"); }
void EmbeddingCuda(const KernelContext&, const EmbeddingParams&) { NotBuilt("Embedding"); }
void RmsNormCuda(const KernelContext&, const RmsNormParams&) { NotBuilt("RmsNorm"); }
void RopeKvWriteCuda(const KernelContext&, const RopeKvWriteParams&) { NotBuilt("RopeKvWrite"); }
void SiluMulCuda(const KernelContext&, const SiluMulParams&) { NotBuilt("SiluMul"); }

std::string_view AttentionCudaName() { return ""; }

}  // namespace structattn
