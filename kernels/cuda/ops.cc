// Finds the table of CUDA ops that this program was linked with. Launches nothing.
#include "kernels/cuda/ops.h"

#include "kernels/check.h"

namespace structattn {
namespace {

const CudaOps* FindOps(DeviceKind device) {
  if (device == DeviceKind::kCuda) return CompiledCudaOps();
  if (device == DeviceKind::kEmulated && EmulatedCudaOps != nullptr) return EmulatedCudaOps();
  return nullptr;
}

}  // namespace

const CudaOps& CudaOpsFor(DeviceKind device) {
  const CudaOps* ops = FindOps(device);
  STRUCTATTN_CHECK(ops != nullptr);
  return *ops;
}

bool HasOps(DeviceKind device) { return device == DeviceKind::kCpu || FindOps(device) != nullptr; }

}  // namespace structattn
