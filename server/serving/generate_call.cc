// Implements generate_call.h.
#include "server/serving/generate_call.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "server/serving/generate_checks.h"
#include "server/serving/prepare_generate.h"

namespace structattn::serving {
namespace {

Started MakeStarted(const engine::ServedModel& served, const engine::GenerateRequest& request,
                    bool echo) {
  const Structure& structure = request.prompt.structure;
  Started started;
  if (echo) {
    started.prompt_token_ids = request.prompt.token_ids;
    started.group_ids.assign(structure.groups().begin(), structure.groups().end());
    started.position_ids.assign(structure.positions().begin(), structure.positions().end());
  }
  started.provenance = MakeProvenance(served, &structure, request.sampling.seed);
  return started;
}

CallUsage UsageOf(const engine::FinishEvent& event) {
  return {.finish_reason = event.reason,
          .prompt_tokens = event.prompt_tokens,
          .cached_tokens = event.cached_tokens,
          .generated_tokens = event.generated_tokens,
          .queue = event.queue,
          .prefill = event.prefill,
          .decode = event.decode};
}

}  // namespace

absl::Status GenerateCall::Check(const Model& model, const Limits& limits) const {
  return CheckGenerate(request_, model, limits);
}

absl::Status GenerateCall::Prepare(const Context& context) {
  absl::StatusOr<engine::GenerateRequest> prepared =
      PrepareGenerate(request_, *context.served.model, context.limits, context.stop);
  if (!prepared.ok()) return prepared.status();
  prepared->arrival = arrival();
  prepared->deadline = deadline();
  started_ = MakeStarted(context.served, *prepared, request_.echo);
  prepared_ = *std::move(prepared);
  return absl::OkStatus();
}

absl::StatusOr<Call::MaybeTicket> GenerateCall::Submit(const engine::ServedModel& served) {
  if (!has_started_) sink_->OnStarted(std::move(started_));
  has_started_ = true;
  // Kept from here: an engine that takes the work may end it, and let the sink go, at once.
  const std::shared_ptr<GenerateSink> sink = sink_;
  // A call that may have to come again gives a copy.
  engine::GenerateRequest request =
      options().waits_for_room ? *prepared_ : *std::exchange(prepared_, std::nullopt);
  const absl::StatusOr<engine::Engine::Ticket> ticket = served.engine->Submit(
      std::move(request), std::static_pointer_cast<GenerateCall>(shared_from_this()));
  if (!ticket.ok()) return ticket.status();
  prepared_.reset();
  sink->OnAccepted();
  return *ticket;
}

void GenerateCall::EmitError(const absl::Status& status) {
  Record(status);
  std::exchange(sink_, nullptr)->OnError(status);
}

void GenerateCall::EmitStopped(engine::FinishReason reason) {
  const std::shared_ptr<GenerateSink> sink = std::exchange(sink_, nullptr);
  if (!has_started_) {
    const std::shared_ptr<engine::ServedModel> served = lease();
    if (!prepared_.has_value() && served != nullptr) {
      started_.provenance = MakeProvenance(*served, nullptr, request_.seed.value_or(0));
    }
    sink->OnStarted(std::move(started_));
  }
  const engine::FinishEvent finish = StoppedEvent(reason);
  Record(absl::OkStatus(), UsageOf(finish));
  for (const engine::ContinuationEnd& end : finish.continuations) {
    engine::TokenEvent event = {};
    event.index = end.index;
    event.group = end.group;
    event.finish = end.reason;
    sink->OnToken(std::move(event));
  }
  sink->OnFinish(finish);
}

void GenerateCall::OnToken(engine::TokenEvent event) { sink_->OnToken(std::move(event)); }

void GenerateCall::OnFinish(const engine::FinishEvent& event) {
  if (!ClaimEnd()) return;
  request_ = {};  // An answer that is not read yet holds no prompt.
  Record(absl::OkStatus(), UsageOf(event));
  std::exchange(sink_, nullptr)->OnFinish(event);
}

void GenerateCall::OnError(const absl::Status& status) {
  if (ClaimEnd()) EmitError(status);
}

// How a call ends that no engine has had: every continuation without a token.
engine::FinishEvent GenerateCall::StoppedEvent(engine::FinishReason reason) const {
  engine::FinishEvent finish = {};
  finish.reason = reason;
  for (const int32_t group : ContinuationGroups()) {
    for (int32_t sample = 0; sample < request_.n; ++sample) {
      const int32_t index = static_cast<int32_t>(finish.continuations.size());
      finish.continuations.push_back(
          {.index = index, .group = group, .reason = reason, .generated_tokens = 0});
    }
  }
  if (prepared_.has_value()) finish.prompt_tokens = prepared_->prompt.structure.size();
  finish.cached_per_segment.resize(request_.prompt.segments.size());
  finish.queue = absl::Now() - arrival();
  return finish;
}

std::vector<int32_t> GenerateCall::ContinuationGroups() const {
  std::vector<int32_t> groups;
  if (prepared_.has_value()) {
    for (const engine::Branch& branch : prepared_->branches) groups.push_back(branch.group);
  } else {
    for (const engine::BranchText& branch : request_.branches) groups.push_back(branch.group);
  }
  if (groups.empty()) groups = {request_.generated_group};
  if (request_.fusion.has_value()) groups.resize(1);
  return groups;
}

}  // namespace structattn::serving
