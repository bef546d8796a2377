// Steps of equal shape recorded once and run again, so that the host launches one graph instead of
// some hundred kernels. Used by the transformer for pure decoding when the operator asked for it.
// Decides when to record, when to run and when to forget; records nothing itself.
#ifndef STRUCTATTN_SERVER_MODEL_STEP_GRAPHS_H_
#define STRUCTATTN_SERVER_MODEL_STEP_GRAPHS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "kernels/cuda/runtime.h"
#include "server/model/step_inputs.h"

namespace structattn {

class StepGraphs {
 public:
  // Recorded steps that are kept; one more and all are forgotten.
  static constexpr size_t kMost = 64;

  // Runs `step`, which reads and writes the same memory whenever `shape` and `kv` are the same: the
  // first time as it is, so that libraries set themselves up; from the second time on as recorded.
  struct Task {
    StepShape shape;
    const void* kv;
    const std::function<void()>& step;
  };
  void Run(const KernelContext& context, const Task& task);

  // The memory of all steps has moved.
  void Clear() { entries_.clear(); }

  // Steps recorded so far, and runs of recorded steps.
  int64_t recorded() const { return recorded_; }
  int64_t replayed() const { return replayed_; }

 private:
  struct Key {
    StepShape shape;
    const void* kv;
    auto operator<=>(const Key&) const = default;
  };

  std::map<Key, std::unique_ptr<RecordedStep>> entries_;  // Null until the second time.
  int64_t recorded_ = 0;
  int64_t replayed_ = 0;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_STEP_GRAPHS_H_
