// A FrontDoor with one model that costs nothing, whose steps and tokenizing a test can hold.
#ifndef STRUCTATTN_TESTS_SERVER_SERVING_FAKE_SERVER_H_
#define STRUCTATTN_TESTS_SERVER_SERVING_FAKE_SERVER_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/model_registry.h"
#include "server/serving/front_door.h"

namespace structattn::serving {

struct FakeServerOptions {
  int32_t max_queued_requests = 64;
  int32_t max_running_sequences = 8;
  bool open = true;
};

class FakeServer {
 public:
  explicit FakeServer(const FakeServerOptions& options = {});
  ~FakeServer();

  FrontDoor& door() { return door_; }
  engine::ModelRegistry& registry() { return registry_; }

  // The model's next step waits until ReleaseSteps.
  void HoldSteps();
  void ReleaseSteps();
  // Returns once a step is being held.
  void AwaitStep();

  // Tokenizing more than the pool calls cheap goes on until it is stopped.
  void HoldTokenizing() { holds_tokenizing_ = true; }

 private:
  absl::StatusOr<std::unique_ptr<engine::ServedModel>> Load(const engine::ModelSource& source);
  void RunStep();

  const FakeServerOptions options_;
  std::atomic<bool> holds_tokenizing_ = false;
  absl::Mutex mutex_;
  absl::CondVar changed_;
  bool holds_steps_ ABSL_GUARDED_BY(mutex_) = false;
  bool step_is_held_ ABSL_GUARDED_BY(mutex_) = false;
  engine::ModelRegistry registry_;
  FrontDoor door_;
};

}  // namespace structattn::serving

#endif  // STRUCTATTN_TESTS_SERVER_SERVING_FAKE_SERVER_H_
