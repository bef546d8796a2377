// See runtime.h. The calls of the CUDA runtime are here, and no decision is.
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "kernels/cuda/runtime.h"

namespace structattn {
namespace {

void Check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(error));
}

class CudaGraph final : public RecordedStep {
 public:
  CudaGraph() = default;
  ~CudaGraph() override {
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
  }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  // Takes ownership of the graph.
  void Instantiate(cudaGraph_t graph) {
    const cudaError_t error = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    Check(error, "cudaGraphInstantiate");
  }

  void Run(const KernelContext& context) override {
    Check(cudaGraphLaunch(executable_, static_cast<cudaStream_t>(context.stream)),
          "cudaGraphLaunch");
  }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

// Records what `step` launches. The capture ends even when `step` throws, or the stream could not
// be used any more.
cudaGraph_t Capture(cudaStream_t stream, const std::function<void()>& step) {
  cudaGraph_t graph = nullptr;
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  try {
    step();
  } catch (...) {
    if (cudaStreamEndCapture(stream, &graph) == cudaSuccess) cudaGraphDestroy(graph);
    throw;
  }
  Check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  return graph;
}

}  // namespace

std::unique_ptr<RecordedStep> RecordCudaGraph(const KernelContext& context,
                                              const std::function<void()>& step) {
  auto recorded = std::make_unique<CudaGraph>();
  recorded->Instantiate(Capture(static_cast<cudaStream_t>(context.stream), step));
  return recorded;
}

int CudaDeviceCount() {
  int devices = 0;  // Stays as it is when the call fails.
  return cudaGetDeviceCount(&devices) == cudaSuccess ? devices : 0;
}

int CudaComputeCapability(int index) {
  int major = 0;
  int minor = 0;
  if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index) != cudaSuccess) {
    return 0;
  }
  return 10 * major + minor;
}

bool CudaContextWorks(int index) {
  cudaGetLastError();  // Takes away an error that only the last call had.
  return cudaSetDevice(index) == cudaSuccess && cudaDeviceSynchronize() == cudaSuccess;
}

}  // namespace structattn
