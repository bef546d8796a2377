// A call that generates: from the caller's request to the engine's events. It adds to Call what
// is told to the sink and when.
#ifndef STRUCTATTN_SERVER_SERVING_GENERATE_CALL_H_
#define STRUCTATTN_SERVER_SERVING_GENERATE_CALL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "server/engine/task/generate_events.h"
#include "server/engine/task/generate_request.h"
#include "server/serving/call.h"
#include "server/serving/provenance.h"
#include "server/serving/requests.h"

namespace structattn::serving {

// What stands in front of an answer. The three lists are empty without echo.
struct Started {
  std::vector<int32_t> prompt_token_ids;
  std::vector<int32_t> group_ids;
  std::vector<int32_t> position_ids;
  Provenance provenance;
};

// The events of a GenerateCall for its protocol: OnError alone; or OnStarted, any number of
// OnToken, and OnFinish or OnError. It must not block. Events come one at a time, but OnAccepted
// may come beside another.
class GenerateSink {
 public:
  virtual ~GenerateSink() = default;
  virtual void OnStarted(Started started) = 0;
  // An engine has accepted the work, so that it is no longer refused. Tokens may have come before.
  virtual void OnAccepted() {}
  virtual void OnToken(engine::TokenEvent event) = 0;
  virtual void OnFinish(const engine::FinishEvent& event) = 0;
  virtual void OnError(const absl::Status& status) = 0;
};

class GenerateCall final : public Call, public engine::EventSink {
 public:
  GenerateCall(Options options, GenerateRequest request, std::shared_ptr<GenerateSink> sink)
      : Call(std::move(options), request.header, TokenizedBytes(request)),
        request_(std::move(request)),
        sink_(std::move(sink)) {}

 protected:
  absl::Status Check(const Model& model, const Limits& limits) const override;
  absl::Status Prepare(const Context& context) override;
  absl::StatusOr<MaybeTicket> Submit(const engine::ServedModel& served) override;
  void EmitError(const absl::Status& status) override;
  void EmitStopped(engine::FinishReason reason) override;

  // The engine's events, on its thread.
  void OnToken(engine::TokenEvent event) override;
  void OnFinish(const engine::FinishEvent& event) override;
  void OnError(const absl::Status& status) override;

 private:
  engine::FinishEvent StoppedEvent(engine::FinishReason reason) const;
  std::vector<int32_t> ContinuationGroups() const;

  GenerateRequest request_;
  std::shared_ptr<GenerateSink> sink_;               // Until the end.
  std::optional<engine::GenerateRequest> prepared_;  // Until an engine has it.
  Started started_;                                  // Until the sink has it.
  bool has_started_ = false;
};

}  // namespace structattn::serving

#endif  // STRUCTATTN_SERVER_SERVING_GENERATE_CALL_H_
