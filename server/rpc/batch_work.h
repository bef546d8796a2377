// One request of a GenerateBatch stream on its way through an engine, whichever kind it is.
// Made by InferenceService, driven by batch_stream. Knows no window and no stream; never blocks.
#ifndef STRUCTATTN_SERVER_RPC_BATCH_WORK_H_
#define STRUCTATTN_SERVER_RPC_BATCH_WORK_H_

#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/engine/sampling/sampling_params.h"
#include "server/engine/served_model.h"
#include "server/engine/task/generate_events.h"
#include "server/engine/task/generate_request.h"
#include "server/rpc/score_codec.h"
#include "structattn/v1/inference_service.pb.h"

namespace structattn {

// How a request of a stream ended.
struct BatchOutcome {
  absl::Status error = {};  // The whole answer when it is not OK.
  // Else these, without index and id; at least one.
  std::deque<v1::GenerateBatchResponse> parts = {};
  std::optional<engine::FinishEvent> finish = {};  // Of what was generated, for the log.
};

class BatchWork {
 public:
  // Hears the end, once, on the engine's thread. Must not block.
  using OnEnd = std::function<void(BatchOutcome)>;

  virtual ~BatchWork() = default;

  // Gives the engine a copy: one without room leaves the work as it was, to be submitted again.
  virtual absl::StatusOr<engine::Engine::Ticket> Submit(OnEnd on_end) const = 0;
  // What the client hears when it ends before an engine has it.
  virtual BatchOutcome EndUnsubmitted(engine::FinishReason reason) const = 0;
  virtual absl::Time deadline() const = 0;
  // The lease of the model. The work's own copy may be dropped by the engine's thread, the last one
  // never.
  virtual std::shared_ptr<engine::ServedModel> served() const = 0;
};

// A request that is in order, and the model that answers it.
struct AdmittedRequest {
  std::shared_ptr<engine::ServedModel> served;
  engine::GenerateRequest request;
};
std::unique_ptr<BatchWork> NewGenerateWork(AdmittedRequest admitted, bool echo);

struct AdmittedScore {
  std::shared_ptr<engine::ServedModel> served;
  DecodedScore score;
};
std::unique_ptr<BatchWork> NewScoreWork(AdmittedScore admitted);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_BATCH_WORK_H_
