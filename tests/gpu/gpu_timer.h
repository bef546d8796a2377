// Device arrays, times and the peaks of the GPU at hand, for the benches of this folder.
#ifndef STRUCTATTN_TESTS_GPU_GPU_TIMER_H_
#define STRUCTATTN_TESTS_GPU_GPU_TIMER_H_

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace structattn {

inline void CheckCuda(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    CheckCuda(cudaMalloc(&data_, count * sizeof(T) + 1));
    CheckCuda(cudaMemset(data_, 0, count * sizeof(T)));
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    CheckCuda(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }

 private:
  const size_t count_;
  T* data_ = nullptr;
};

// Mean seconds of one call on the default stream, after a few to warm up.
template <typename Body>
double SecondsOf(const Body& body) {
  constexpr int kWarmUp = 3;
  constexpr int kCalls = 30;
  cudaEvent_t begin;
  cudaEvent_t end;
  CheckCuda(cudaEventCreate(&begin));
  CheckCuda(cudaEventCreate(&end));
  for (int i = 0; i < kWarmUp; ++i) body();
  CheckCuda(cudaEventRecord(begin));
  for (int i = 0; i < kCalls; ++i) body();
  CheckCuda(cudaEventRecord(end));
  CheckCuda(cudaEventSynchronize(end));
  float milliseconds = 0.0f;
  CheckCuda(cudaEventElapsedTime(&milliseconds, begin, end));
  CheckCuda(cudaEventDestroy(begin));
  CheckCuda(cudaEventDestroy(end));
  return milliseconds / 1e3 / kCalls;
}

// The peaks that the data sheet's formula gives for this GPU: dense 16-bit products with float sums
// at its highest clock, and the memory's transfers (two a clock).
struct Peak {
  double flops;
  double bytes_per_s;
};

inline int Attribute(cudaDeviceAttr attribute) {
  int value = 0;
  CheckCuda(cudaDeviceGetAttribute(&value, attribute, 0));
  return value;
}

// Dense 16-bit floating-point operations of a multiprocessor in a clock, by compute capability.
inline int FlopsPerClock(int major, int minor) {
  if (major == 8) return minor == 0 ? 2048 : 1024;
  if (major == 9) return 4096;
  return major == 10 ? 8192 : 1024;
}

inline Peak PeakOfDevice() {
  const double clock = Attribute(cudaDevAttrClockRate) * 1e3;
  const int per_clock = FlopsPerClock(Attribute(cudaDevAttrComputeCapabilityMajor),
                                      Attribute(cudaDevAttrComputeCapabilityMinor));
  return {.flops = clock * per_clock * Attribute(cudaDevAttrMultiProcessorCount),
          .bytes_per_s = 2.0 * Attribute(cudaDevAttrMemoryClockRate) * 1e3 *
                         Attribute(cudaDevAttrGlobalMemoryBusWidth) / 8};
}

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_GPU_GPU_TIMER_H_
