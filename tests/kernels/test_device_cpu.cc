// The tests' device is the CPU. A step outside of a buffer is the address sanitizer's to find.
#include "tests/kernels/test_device.h"

namespace structattn {

DeviceKind TestDevice() { return DeviceKind::kCpu; }

void RunOnTestDevice(ThreadPool& pool, const std::vector<TestBuffer>&,
                     const std::function<void(const KernelContext&)>& op) {
  op({.device = DeviceKind::kCpu, .pool = &pool});
}

}  // namespace structattn
