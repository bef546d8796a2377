// Implements batch_call.h.
#include "server/rpc/v1/batch_call.h"

#include <utility>

#include "server/rpc/v1/request_codec.h"
#include "server/rpc/v1/response_codec.h"
#include "server/serving/generate_call.h"
#include "server/serving/score_call.h"

namespace structattn::rpc {
namespace {

using OnEnd = std::function<void(BatchOutcome)>;

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
  return outcome;
}

class BatchGenerateSink final : public serving::GenerateSink {
 public:
  explicit BatchGenerateSink(OnEnd on_end) : on_end_(std::move(on_end)) {}

  void OnStarted(serving::Started started) override { started_ = EncodeStarted(started); }
  void OnToken(engine::TokenEvent event) override { AppendToken(event, ChunkFor(event.index)); }
  void OnFinish(const engine::FinishEvent& event) override {
    on_end_(GenerateOutcome(std::move(started_), std::move(chunks_), event));
  }
  void OnError(const absl::Status& status) override { on_end_({.error = status}); }

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

  const OnEnd on_end_;
  v1::Started started_;
  std::deque<v1::Chunk> chunks_;
};

class BatchScoreSink final : public serving::ScoreAnswerSink {
 public:
  explicit BatchScoreSink(OnEnd on_end) : on_end_(std::move(on_end)) {}

  void OnAnswer(serving::ScoreAnswer answer) override {
    BatchOutcome outcome = {.parts = std::deque<v1::GenerateBatchResponse>(1)};
    *outcome.parts.front().mutable_scored() = EncodeScores(answer);
    on_end_(std::move(outcome));
  }
  void OnError(const absl::Status& status) override { on_end_({.error = status}); }

 private:
  const OnEnd on_end_;
};

}  // namespace

BatchCall NewBatchCall(const v1::GenerateBatchRequest& message, serving::Call::Options options,
                       const serving::Limits& limits, OnEnd on_end) {
  if (message.has_score()) {
    serving::ScoreRequest request;
    const absl::Status decoded = DecodeScoreRequest(message.score(), limits, &request);
    return {.call = std::make_shared<serving::ScoreCall>(
                std::move(options), std::move(request),
                std::make_shared<BatchScoreSink>(std::move(on_end))),
            .decoded = decoded};
  }
  serving::GenerateRequest request;
  const absl::Status decoded = DecodeGenerateRequest(message.generate(), limits, &request);
  return {.call = std::make_shared<serving::GenerateCall>(
              std::move(options), std::move(request),
              std::make_shared<BatchGenerateSink>(std::move(on_end))),
          .decoded = decoded};
}

}  // namespace structattn::rpc
