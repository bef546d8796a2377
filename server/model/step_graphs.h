// Steps of equal shape are recorded once and run again, so that the host launches one graph instead
// of some hundred kernels. StepGraphs decides when to record, when to run and when to forget, and
// records nothing itself.
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
  // So many recorded steps are kept. With one more, all are forgotten.
  static constexpr size_t kMost = 64;

  // Runs `step`, which reads and writes the same memory whenever `shape` and `kv` are the same. The
  // first time it runs as it is, so that libraries set themselves up; from the second time on it is
  // recorded.
  struct Task {
    StepShape shape;
    const void* kv;
    const std::function<void()>& step;
  };
  void Run(const KernelContext& context, const Task& task);

  // Forgets all steps. Must be called when their memory has moved.
  void Clear() { entries_.clear(); }

  // The number of steps recorded so far, and of runs of recorded steps.
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
