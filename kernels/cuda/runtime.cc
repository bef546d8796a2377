// See runtime.h. What is here is the same in every build, with or without a CUDA compiler.
#include "kernels/cuda/runtime.h"

#include <utility>

namespace structattn {
namespace {

class RepeatedStep final : public RecordedStep {
 public:
  explicit RepeatedStep(std::function<void()> step) : step_(std::move(step)) {}
  void Run(const KernelContext&) override { step_(); }

 private:
  const std::function<void()> step_;
};

}  // namespace

std::unique_ptr<RecordedStep> Record(const KernelContext& context,
                                     const std::function<void()>& step) {
  if (context.device == DeviceKind::kCuda) return RecordCudaGraph(context, step);
  return std::make_unique<RepeatedStep>(step);
}

}  // namespace structattn
