// The tests' device is the emulator. Every schedule must give the same bits, and no report.
#include "tests/kernels/test_device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <utility>

#include "tests/simt/simt.h"

namespace structattn {
namespace {

using Bytes = std::vector<unsigned char>;

std::vector<Bytes> Contents(const std::vector<TestBuffer>& buffers) {
  std::vector<Bytes> contents;
  for (const TestBuffer& buffer : buffers) {
    const auto* begin = static_cast<const unsigned char*>(buffer.data);
    contents.emplace_back(begin, begin + buffer.bytes);
  }
  return contents;
}

}  // namespace

DeviceKind TestDevice() { return DeviceKind::kEmulated; }

void RunOnTestDevice(ThreadPool&, const std::vector<TestBuffer>& buffers,
                     const std::function<void(const KernelContext&)>& op) {
  std::list<simt::Memory> memory;
  for (const TestBuffer& buffer : buffers) {
    memory.emplace_back(buffer.data, buffer.bytes,
                        buffer.written ? simt::Access::kWritable : simt::Access::kReadOnly);
  }
  const std::vector<Bytes> before = Contents(buffers);
  std::vector<Bytes> first;
  for (const uint64_t seed : simt::kSeeds) {
    for (size_t i = 0; i < buffers.size(); ++i) {
      std::copy(before[i].begin(), before[i].end(), static_cast<unsigned char*>(buffers[i].data));
    }
    simt::SetSeed(seed);
    op({.device = DeviceKind::kEmulated});
    EXPECT_EQ(simt::Describe(simt::TakeReports()), "") << "seed " << seed;
    std::vector<Bytes> after = Contents(buffers);
    if (first.empty())
      first = std::move(after);
    else
      EXPECT_TRUE(after == first) << "seed " << seed << " gives other bits";
  }
}

}  // namespace structattn
