// What a client asks of the engine when tokens are generated. No gRPC, no protobuf.
#ifndef STRUCTATTN_SERVER_ENGINE_TASK_GENERATE_REQUEST_H_
#define STRUCTATTN_SERVER_ENGINE_TASK_GENERATE_REQUEST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/engine/cache/sequence_blocks.h"
#include "server/engine/prompt/branches.h"
#include "server/engine/prompt/prompt.h"
#include "server/engine/sampling/fused_distribution.h"
#include "server/engine/sampling/sampling_params.h"

namespace structattn::engine {

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

struct GenerateRequest {
  std::string request_id;
  EncodedPrompt prompt;
  int32_t generated_group = 0;
  // Empty: one branch, in generated_group, predicted from the last prompt token.
  std::vector<Branch> branches = {};
  // Continuations of each branch: so many are sampled, and the `samples` likeliest are the answer.
  int32_t samples = 1;
  int32_t best_of = 1;  // At least `samples`.
  // Needs branches: each is a member. samples and best_of are 1.
  std::optional<Fusion> fusion = {};
  SamplingParams sampling;
  StoppingParams stopping;
  CachePolicy cache = {};
  int32_t top_logprobs = 0;
  absl::Time arrival = absl::Now();
  absl::Time deadline = absl::InfiniteFuture();
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_TASK_GENERATE_REQUEST_H_
