// What a client asks of the engine and what it hears back, in engine types.
// Filled by server/rpc/codec; consumed by server/engine. No gRPC, no protobuf.
#ifndef STRUCTATTN_SERVER_ENGINE_REQUEST_H_
#define STRUCTATTN_SERVER_ENGINE_REQUEST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/engine/prompt.h"

namespace structattn {

// Filters apply in this order: bias, penalties, temperature, top-k, top-p, min-p.
struct SamplingParams {
  float temperature = 0.0f;  // 0: greedy.
  int32_t top_k = 0;         // 0: off.
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;
};

struct StoppingParams {
  int32_t max_tokens = 128;
  std::vector<std::string> stop_strings;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
};

// Of keys and values computed for other requests.
struct CachePolicy {
  bool bypass = false;  // Neither use theirs nor let them use ours.
  std::string salt;     // Only requests with equal salt share.
};

// A continuation in a group of its own: sees neither the other branches nor is seen by them.
struct Branch {
  int32_t group = 0;
  std::vector<int32_t> cue = {};  // Tokens of the group between the prompt and what is generated.
  // Without a cue: the prompt token from which the first token is predicted.
  int32_t predicted_from = 0;
  // What predicted_from does not see is no part of the branch's prompt: it counts neither against
  // the context length nor for penalties.
  bool own_prompt = false;
};

enum class FusionMethod { kAverage, kMaximum };

// One answer of all branches: each is a member of the fused next-token distribution, and the token
// that is picked from it goes on in all of them.
struct Fusion {
  FusionMethod method = FusionMethod::kAverage;
  // Of the branches, with sum 1. Empty: from the confidence in each.
  std::vector<double> weights = {};
  // Confidence: the share of so many samples of a branch, drawn at this temperature, whose text is
  // that of its greedy continuation.
  int32_t confidence_samples = 0;
  float confidence_temperature = 1.0f;
};

struct Request {
  std::string request_id;
  EncodedPrompt prompt;
  int32_t generated_group = 0;
  // Empty: one branch, in generated_group, predicted from the last prompt token.
  std::vector<Branch> branches = {};
  // Continuations of each branch: so many are sampled, and the `samples` likeliest are the answer.
  int32_t samples = 1;
  int32_t best_of = 1;  // At least `samples`.
  // With branches, each in the place of a member; samples and best_of are 1.
  std::optional<Fusion> fusion = {};
  SamplingParams sampling;
  StoppingParams stopping;
  CachePolicy cache = {};
  int32_t top_logprobs = 0;
  absl::Time arrival = absl::Now();
  absl::Time deadline = absl::InfiniteFuture();
};

enum class FinishReason { kStop, kStopToken, kStopString, kLength, kCancelled, kDeadline };

struct TokenLogprob {
  int32_t token_id;
  float logprob;
};

// A new token of one continuation, or only text that became certain, or its end.
struct TokenEvent {
  int32_t index = 0;  // Of the continuation: branch * samples + sample.
  int32_t group = 0;
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<float> logprobs;
  std::vector<std::vector<TokenLogprob>> top_logprobs;
  std::vector<std::vector<float>> member_logprobs = {};  // Of each token with fusion, by member.
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
  double weight = 0.0;  // Of all, with sum 1; 0 while confidence is not known.
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

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_ENGINE_REQUEST_H_
