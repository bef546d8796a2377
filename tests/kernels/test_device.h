// Where the tests of the row-wise ops run. The same sources are linked with test_device_cpu.cc and,
// for the CUDA kernels on the host emulator, with tests/simt/test_device.cc.
#ifndef STRUCTATTN_TESTS_KERNELS_TEST_DEVICE_H_
#define STRUCTATTN_TESTS_KERNELS_TEST_DEVICE_H_

#include <cstddef>
#include <functional>
#include <vector>

#include "kernels/context.h"
#include "tests/kernels/typed_buffer.h"

namespace structattn {

// Bytes that an op may read.
struct TestBuffer {
  void* data;
  size_t bytes;
  bool written;  // Whether the op may write them, too.
};

template <typename T>
TestBuffer Read(const std::vector<T>& values) {
  return {const_cast<T*>(values.data()), values.size() * sizeof(T), false};
}
template <typename T>
TestBuffer Written(std::vector<T>& values) {
  return {values.data(), values.size() * sizeof(T), true};
}
inline TestBuffer Read(const TypedBuffer& buffer) {
  return {const_cast<void*>(buffer.data()), buffer.size() * ByteSize(buffer.dtype()), false};
}
inline TestBuffer Written(TypedBuffer& buffer) {
  return {buffer.data(), buffer.size() * ByteSize(buffer.dtype()), true};
}

DeviceKind TestDevice();

// Runs `op`, which touches nothing but `buffers`, on the pool, or several times on the emulator.
// Each time it starts from the same state and must give the same bits.
void RunOnTestDevice(ThreadPool& pool, const std::vector<TestBuffer>& buffers,
                     const std::function<void(const KernelContext&)>& op);

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_KERNELS_TEST_DEVICE_H_
