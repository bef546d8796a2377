// See torch_memory.h.
#include "tests/server/emulated/torch_memory.h"

#include <c10/core/Allocator.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "tests/simt/simt.h"

namespace structattn {
namespace {

constexpr size_t kAlignment = 256;  // As cudaMalloc.

void Free(void* data) {
  if (data == nullptr) return;
  simt::UnregisterMemory(data);
  std::free(data);
}

class RegisteringAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* data = nullptr;
    if (bytes > 0) {
      data = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
      if (data == nullptr) throw std::bad_alloc();
      std::memset(data, 0xff, bytes);
      simt::RegisterMemory(data, bytes, simt::Access::kWritable);
    }
    return {data, data, &Free, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};

}  // namespace

void RegisterTorchMemory() {
  static RegisteringAllocator* const allocator = new RegisteringAllocator;  // Outlives all tensors.
  c10::SetAllocator(c10::DeviceType::CPU, allocator, /*priority=*/1);
}

}  // namespace structattn
