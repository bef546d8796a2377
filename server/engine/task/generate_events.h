// What the client of a GenerateRequest is sent while it is served, and in the end. No gRPC, no
// protobuf.
#ifndef STRUCTATTN_SERVER_ENGINE_TASK_GENERATE_EVENTS_H_
#define STRUCTATTN_SERVER_ENGINE_TASK_GENERATE_EVENTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/engine/sampling/sampling_params.h"

namespace structattn::engine {

// A new token of one continuation, or only text that became certain, or its end.
struct TokenEvent {
  int32_t index = 0;  // The continuation: branch * samples + sample.
  int32_t group = 0;
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<float> logprobs;
  std::vector<std::vector<TokenLogprob>> top_logprobs;
  std::vector<std::vector<float>> member_logprobs = {};  // By token and member; with fusion.
  std::optional<FinishReason> finish = {};  // Set in the last event of the continuation.
};

// How one continuation ended.
struct ContinuationEnd {
  int32_t index = 0;
  int32_t group = 0;
  FinishReason reason = FinishReason::kLength;
  int32_t generated_tokens = 0;
};

// What one member of a fusion was worth.
struct FusionMember {
  int32_t group = 0;
  double weight = 0.0;  // A share of all; they sum to 1. 0 while confidence is not known.
  // With weights from confidence:
  std::string greedy_text = {};
  int32_t agreeing_samples = 0;
};

struct FinishEvent {
  // kCancelled or kDeadline where a continuation ended so, else that of the first one.
  FinishReason reason = FinishReason::kLength;
  std::vector<ContinuationEnd> continuations = {};  // By index.
  std::vector<FusionMember> members = {};           // With fusion.
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;  // Prompt tokens whose keys and values were not computed for it.
  std::vector<int32_t> cached_per_segment;  // The same by segment; special tokens are in none.
  // Of all continuations, those that best_of dropped and those for confidence included.
  int32_t generated_tokens = 0;
  absl::Duration queue;
  absl::Duration prefill;
  absl::Duration decode;
};

// Receives the events of one request, on the engine thread, in order. Must not block. After
// OnFinish or OnError nothing more comes, and the engine has let go of the sink.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void OnToken(TokenEvent event) = 0;
  virtual void OnFinish(const FinishEvent& event) = 0;
  virtual void OnError(const absl::Status& status) = 0;
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_TASK_GENERATE_EVENTS_H_
