// What a caller asks for, in the words of the API and of no protocol: text and options before
// anything is checked or tokenized. A protocol's codec fills these; prepare_generate and
// prepare_score check them and make the engine's requests of them.
#ifndef STRUCTATTN_SERVER_SERVING_REQUESTS_H_
#define STRUCTATTN_SERVER_SERVING_REQUESTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/engine/prompt/continuation_tokens.h"
#include "server/engine/prompt/prompt.h"
#include "server/engine/task/generate_request.h"

namespace structattn::serving {

// What every request says beside its question.
struct RequestHeader {
  std::string request_id;  // Free; it comes back in logs.
  std::string model;       // Empty: the only one.
  int64_t timeout_ms = 0;  // From arrival; 0: none.
  engine::CachePolicy cache = {};
};

// Weights from how many samples of a member agree with its greedy continuation.
struct Confidence {
  int32_t samples = 8;
  float temperature = 1.0f;
};

struct FusionRequest {
  enum class Source { kPerParaphrasePrompts, kBranches };

  engine::FusionMethod method = engine::FusionMethod::kAverage;
  bool is_weighted = false;  // The method takes weights, given or from confidence.
  Source source = Source::kPerParaphrasePrompts;
  std::vector<double> weights = {};  // One per member.
  std::optional<Confidence> confidence = {};
};

struct GenerateRequest {
  RequestHeader header;
  engine::Prompt prompt;
  engine::SamplingParams sampling = {};  // Its seed counts only when `seed` is set.
  std::optional<uint64_t> seed = {};     // Absent: one is drawn where sampling needs it.
  engine::StoppingParams stopping = {};
  int32_t top_logprobs = 0;
  bool echo = false;  // The answer begins with the prompt's ids, groups and positions.
  int32_t generated_group = 0;
  std::vector<engine::BranchText> branches = {};
  int32_t n = 1;
  std::optional<int32_t> best_of = {};  // Absent: n.
  std::optional<FusionRequest> fusion = {};
};

// Where log-probabilities of the next token are read in the prompt, and of which tokens.
struct ReadOutsRequest {
  std::vector<int32_t> token_indices = {};
  bool group_ends = false;  // The last token of each group, too.
  std::vector<int32_t> candidate_token_ids = {};
  int32_t top_logprobs = 0;
};

struct ScoreRequest {
  RequestHeader header;
  engine::Prompt prompt;
  std::vector<engine::ContinuationText> continuations = {};
  int32_t generated_group = 0;
  std::optional<int32_t> prompt_logprobs_start = {};
  std::optional<ReadOutsRequest> read_outs = {};
};

struct ScoreRollingRequest {
  RequestHeader header;
  engine::ContinuationText text;
  int32_t window_tokens = 0;  // 0: the context length.
  // In front of the text, not scored itself. Absent: what stands for an empty prompt.
  std::optional<int32_t> prefix_token_id = {};
};

struct InspectRequest {
  RequestHeader header;
  engine::Prompt prompt;
};

// Bytes of text that a request has tokenized: how long that takes, to a factor. A continuation
// under joint tokenization is encoded together with its prompt.
int64_t TokenizedBytes(const engine::Prompt& prompt);
int64_t TokenizedBytes(const GenerateRequest& request);
int64_t TokenizedBytes(const ScoreRequest& request);
int64_t TokenizedBytes(const ScoreRollingRequest& request);
int64_t TokenizedBytes(const InspectRequest& request);

}  // namespace structattn::serving

#endif  // STRUCTATTN_SERVER_SERVING_REQUESTS_H_
