// Implements score_call.h.
#include "server/serving/score_call.h"

#include <utility>

#include "server/serving/prepare_generate.h"

namespace structattn::serving {
namespace {

CallUsage UsageOf(const engine::ScoreEvent& event) {
  return {.prompt_tokens = event.prompt_tokens,
          .cached_tokens = event.cached_tokens,
          .queue = event.queue,
          .prefill = event.prefill,
          .decode = event.decode};
}

}  // namespace

absl::Status ScoreCall::Check(const Model& model, const Limits& limits) const {
  const auto* score = std::get_if<ScoreRequest>(&request_);
  return score != nullptr
             ? CheckScore(*score, model, limits)
             : CheckScoreRolling(std::get<ScoreRollingRequest>(request_), model, limits);
}

absl::Status ScoreCall::Prepare(const Context& context) {
  const auto* score = std::get_if<ScoreRequest>(&request_);
  absl::StatusOr<PreparedScore> prepared =
      score != nullptr ? PrepareScore(*score, context.served, context.limits, context.stop)
                       : PrepareScoreRolling(std::get<ScoreRollingRequest>(request_),
                                             context.served, context.stop);
  if (!prepared.ok()) return prepared.status();
  prepared->request.arrival = arrival();
  prepared->request.deadline = deadline();
  prepared_ = *std::move(prepared);
  return absl::OkStatus();
}

absl::StatusOr<Call::MaybeTicket> ScoreCall::Submit(const engine::ServedModel& served) {
  // A call that may have to come again gives a copy.
  engine::ScoreRequest request =
      options().waits_for_room ? prepared_->request : std::move(prepared_->request);
  return served.engine->Submit(std::move(request),
                               std::static_pointer_cast<ScoreCall>(shared_from_this()));
}

void ScoreCall::EmitError(const absl::Status& status) {
  Record(status);
  std::exchange(sink_, nullptr)->OnError(status);
}

void ScoreCall::EmitStopped(engine::FinishReason reason) {
  EmitError(engine::UnscoredError(reason));
}

void ScoreCall::OnScores(engine::ScoreEvent event) {
  if (!ClaimEnd()) return;
  request_ = ScoreRequest();  // An answer that is not read yet holds no prompt.
  Record(absl::OkStatus(), UsageOf(event));
  std::exchange(sink_, nullptr)->OnAnswer(CompleteAnswer(*std::move(prepared_), std::move(event)));
}

void ScoreCall::OnError(const absl::Status& status) {
  if (ClaimEnd()) EmitError(status);
}

absl::Status InspectCall::Check(const Model& model, const Limits& limits) const {
  return engine::CheckPrompt(request_.prompt, PromptLimitsFor(model, limits));
}

absl::Status InspectCall::Prepare(const Context& context) {
  absl::StatusOr<engine::EncodedPrompt> prompt =
      PrepareInspect(request_, *context.served.model, context.limits, context.stop);
  if (!prompt.ok()) return prompt.status();
  prompt_ = *std::move(prompt);
  return absl::OkStatus();
}

// There is nothing to run: the prompt is the answer.
absl::StatusOr<Call::MaybeTicket> InspectCall::Submit(const engine::ServedModel& served) {
  if (!ClaimEnd()) return std::nullopt;
  Record(absl::OkStatus(), CallUsage{.prompt_tokens = prompt_->structure.size()});
  std::exchange(sink_, nullptr)->OnInspected(*prompt_, *served.model->tokenizer);
  return std::nullopt;
}

void InspectCall::EmitError(const absl::Status& status) {
  Record(status);
  std::exchange(sink_, nullptr)->OnError(status);
}

void InspectCall::EmitStopped(engine::FinishReason reason) {
  EmitError(reason == engine::FinishReason::kDeadline
                ? absl::DeadlineExceededError("the deadline has passed before the prompt was read")
                : absl::CancelledError("the request was cancelled"));
}

}  // namespace structattn::serving
