// Calls that generate nothing: scores of given tokens, and the dry run of a prompt. They add to
// Call what is asked and what is answered.
#ifndef STRUCTATTN_SERVER_SERVING_SCORE_CALL_H_
#define STRUCTATTN_SERVER_SERVING_SCORE_CALL_H_

#include <memory>
#include <optional>
#include <utility>
#include <variant>

#include "server/engine/task/score_request.h"
#include "server/serving/call.h"
#include "server/serving/prepare_score.h"
#include "server/serving/requests.h"

namespace structattn::serving {

// Hears exactly one of the two, once. Must not block.
class ScoreAnswerSink {
 public:
  virtual ~ScoreAnswerSink() = default;
  virtual void OnAnswer(ScoreAnswer answer) = 0;
  virtual void OnError(const absl::Status& status) = 0;
};

class ScoreCall final : public Call, public engine::ScoreSink {
 public:
  ScoreCall(Options options, ScoreRequest request, std::shared_ptr<ScoreAnswerSink> sink)
      : Call(std::move(options), request.header, TokenizedBytes(request)),
        request_(std::move(request)),
        sink_(std::move(sink)) {}
  ScoreCall(Options options, ScoreRollingRequest request, std::shared_ptr<ScoreAnswerSink> sink)
      : Call(std::move(options), request.header, TokenizedBytes(request)),
        request_(std::move(request)),
        sink_(std::move(sink)) {}

 protected:
  absl::Status Check(const Model& model, const Limits& limits) const override;
  absl::Status Prepare(const Context& context) override;
  absl::StatusOr<MaybeTicket> Submit(const engine::ServedModel& served) override;
  void EmitError(const absl::Status& status) override;
  void EmitStopped(engine::FinishReason reason) override;

  // The engine's answer, on its thread.
  void OnScores(engine::ScoreEvent event) override;
  void OnError(const absl::Status& status) override;

 private:
  std::variant<ScoreRequest, ScoreRollingRequest> request_;
  std::shared_ptr<ScoreAnswerSink> sink_;  // Until the end.
  std::optional<PreparedScore> prepared_;
};

// Hears exactly one of the two, once, on a thread of the pool.
class InspectSink {
 public:
  virtual ~InspectSink() = default;
  virtual void OnInspected(const engine::EncodedPrompt& prompt, const Tokenizer& tokenizer) = 0;
  virtual void OnError(const absl::Status& status) = 0;
};

class InspectCall final : public Call {
 public:
  InspectCall(Options options, InspectRequest request, std::shared_ptr<InspectSink> sink)
      : Call(std::move(options), request.header, TokenizedBytes(request)),
        request_(std::move(request)),
        sink_(std::move(sink)) {}

 protected:
  absl::Status Check(const Model& model, const Limits& limits) const override;
  absl::Status Prepare(const Context& context) override;
  absl::StatusOr<MaybeTicket> Submit(const engine::ServedModel& served) override;
  void EmitError(const absl::Status& status) override;
  void EmitStopped(engine::FinishReason reason) override;

 private:
  const InspectRequest request_;
  std::shared_ptr<InspectSink> sink_;  // Until the end.
  std::optional<engine::EncodedPrompt> prompt_;
};

}  // namespace structattn::serving

#endif  // STRUCTATTN_SERVER_SERVING_SCORE_CALL_H_
