// The kernels of Linear with int8 weights that faults_test.py spoils, as a shared library for
// simt_faults. Each has one type, so that each fault is built quickly, and the library is never
// part of a CMake target.
#include "kernels/cuda/ops.cuh"
#include "kernels/linear/int8_linear.cuh"

namespace structattn::emulated {
namespace {

template <typename Kernel>
void LaunchFor(const KernelContext& context, const LinearParams& p) {
  Launch<Kernel>(context, Kernel::Shape(p), p);
}

void FaultyLinear(const KernelContext& context, const LinearParams& p) {
  if (p.weight.input_dtype == DType::kFloat32) return LaunchFor<Int8LinearFloatKernel>(context, p);
  if (p.weight.input_dtype == DType::kFloat16 && p.rows > 16 && p.rows <= 64)
    return LaunchFor<Int8LinearKernel<Float16, 64>>(context, p);
  if (p.weight.input_dtype == DType::kBfloat16 && p.rows <= 16)
    return LaunchFor<Int8LinearKernel<Bfloat16, 16>>(context, p);
  if (p.weight.input_dtype == DType::kBfloat16 && p.rows > 64)
    return LaunchFor<Int8LinearKernel<Bfloat16, 96>>(context, p);
  emulated::Linear(context, p);  // The program's own kernel.
}

}  // namespace
}  // namespace structattn::emulated

extern "C" void StructattnInstall(structattn::CudaOps* ops) {
  ops->linear = &structattn::emulated::FaultyLinear;
}
