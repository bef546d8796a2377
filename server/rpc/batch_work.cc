// See batch_work.h.
#include "server/rpc/batch_work.h"

#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "server/rpc/response_codec.h"

namespace structattn {
namespace {

// A message takes one chunk: the first and the last have what surrounds them.
BatchOutcome GenerateOutcome(v1::Started started, std::deque<v1::Chunk> chunks,
                             const engine::FinishEvent& finish) {
  BatchOutcome outcome = {.parts = std::deque<v1::GenerateBatchResponse>(1)};
  *outcome.parts.front().mutable_generated()->mutable_started() = std::move(started);
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (i > 0) outcome.parts.emplace_back();
    *outcome.parts.back().mutable_generated()->mutable_chunk() = std::move(chunks[i]);
  }
  *outcome.parts.back().mutable_generated()->mutable_finished() = EncodeFinished(finish);
  outcome.finish = finish;
  return outcome;
}

BatchOutcome ErrorOutcome(absl::Status error) { return {.error = std::move(error)}; }

// Gathers one answer; who waits for it hears of it when it is whole.
class GenerateSink final : public engine::EventSink {
 public:
  GenerateSink(v1::Started started, BatchWork::OnEnd on_end)
      : started_(std::move(started)), on_end_(std::move(on_end)) {}

  void OnToken(engine::TokenEvent event) override { AppendToken(event, ChunkFor(event.index)); }
  void OnFinish(const engine::FinishEvent& event) override {
    on_end_(GenerateOutcome(std::move(started_), std::move(chunks_), event));
  }
  void OnError(const absl::Status& status) override { on_end_(ErrorOutcome(status)); }

 private:
  // The last chunk of this continuation, while it has room; else a new one.
  v1::Chunk* ChunkFor(int32_t continuation) {
    for (auto chunk = chunks_.rbegin(); chunk != chunks_.rend(); ++chunk) {
      if (chunk->index() != continuation) continue;
      if (chunk->token_ids_size() >= kMaxTokensPerChunk) break;
      return &*chunk;
    }
    return &chunks_.emplace_back();
  }

  v1::Started started_;
  std::deque<v1::Chunk> chunks_;
  const BatchWork::OnEnd on_end_;
};

class GenerateWork final : public BatchWork {
 public:
  GenerateWork(AdmittedRequest admitted, bool echo)
      : served_(std::move(admitted.served)),
        request_(std::move(admitted.request)),
        started_(EncodeStarted(*served_, request_, echo)) {}

  absl::StatusOr<engine::Engine::Ticket> Submit(OnEnd on_end) const override {
    return served_->engine->Submit(request_,
                                   std::make_shared<GenerateSink>(started_, std::move(on_end)));
  }

  BatchOutcome EndUnsubmitted(engine::FinishReason reason) const override {
    engine::FinishEvent finish = {};
    finish.reason = reason;
    finish.continuations = Ends(reason);
    finish.prompt_tokens = request_.prompt.structure.size();
    finish.cached_per_segment.resize(request_.prompt.segment_count);
    finish.queue = absl::Now() - request_.arrival;
    std::deque<v1::Chunk> chunks;
    for (const engine::ContinuationEnd& end : finish.continuations) {
      engine::TokenEvent event = {};
      event.index = end.index;
      event.group = end.group;
      event.finish = end.reason;
      AppendToken(event, &chunks.emplace_back());
    }
    return GenerateOutcome(started_, std::move(chunks), finish);
  }

  absl::Time deadline() const override { return request_.deadline; }
  std::shared_ptr<engine::ServedModel> served() const override { return served_; }

 private:
  // Of all continuations, without a token.
  std::vector<engine::ContinuationEnd> Ends(engine::FinishReason reason) const {
    std::vector<int32_t> groups;
    for (const engine::Branch& branch : request_.branches) groups.push_back(branch.group);
    if (groups.empty()) groups = {request_.generated_group};
    if (request_.fusion.has_value()) groups.resize(1);
    std::vector<engine::ContinuationEnd> ends;
    for (const int32_t group : groups) {
      for (int32_t sample = 0; sample < request_.samples; ++sample) {
        const int32_t index = static_cast<int32_t>(ends.size());
        ends.push_back({.index = index, .group = group, .reason = reason, .generated_tokens = 0});
      }
    }
    return ends;
  }

  const std::shared_ptr<engine::ServedModel> served_;
  const engine::GenerateRequest request_;
  const v1::Started started_;
};

class ScoreBatchSink final : public engine::ScoreSink {
 public:
  // `score`: its reply and places.
  ScoreBatchSink(const DecodedScore& score, BatchWork::OnEnd on_end)
      : reply_(score.reply), places_(score.places), on_end_(std::move(on_end)) {}

  void OnScores(engine::ScoreEvent event) override {
    FillScores(event, places_, &reply_);
    BatchOutcome outcome = {.parts = std::deque<v1::GenerateBatchResponse>(1)};
    *outcome.parts.front().mutable_scored() = std::move(reply_);
    on_end_(std::move(outcome));
  }
  void OnError(const absl::Status& status) override { on_end_(ErrorOutcome(status)); }

 private:
  v1::ScoreResponse reply_;
  const std::vector<engine::EncodedContinuations::Place> places_;
  const BatchWork::OnEnd on_end_;
};

class ScoreWork final : public BatchWork {
 public:
  explicit ScoreWork(AdmittedScore admitted)
      : served_(std::move(admitted.served)), score_(std::move(admitted.score)) {}

  absl::StatusOr<engine::Engine::Ticket> Submit(OnEnd on_end) const override {
    return served_->engine->Submit(score_.request,
                                   std::make_shared<ScoreBatchSink>(score_, std::move(on_end)));
  }
  BatchOutcome EndUnsubmitted(engine::FinishReason reason) const override {
    return ErrorOutcome(engine::UnscoredError(reason));
  }
  absl::Time deadline() const override { return score_.request.deadline; }
  std::shared_ptr<engine::ServedModel> served() const override { return served_; }

 private:
  const std::shared_ptr<engine::ServedModel> served_;
  const DecodedScore score_;
};

}  // namespace

std::unique_ptr<BatchWork> NewGenerateWork(AdmittedRequest admitted, bool echo) {
  return std::make_unique<GenerateWork>(std::move(admitted), echo);
}

std::unique_ptr<BatchWork> NewScoreWork(AdmittedScore admitted) {
  return std::make_unique<ScoreWork>(std::move(admitted));
}

}  // namespace structattn
