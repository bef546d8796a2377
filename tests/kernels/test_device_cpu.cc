// The tests' device is the CPU. The address sanitizer finds accesses outside of a buffer.
#include "tests/kernels/test_device.h"

namespace structattn {

DeviceKind TestDevice() { return DeviceKind::kCpu; }

void RunOnTestDevice(ThreadPool& pool, const std::vector<TestBuffer>&,
                     const std::function<void(const KernelContext&)>& op) {
  op({.device = DeviceKind::kCpu, .pool = &pool});
}

}  // namespace structattn
