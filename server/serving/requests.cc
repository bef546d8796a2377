// Implements requests.h: what tokenizing a request costs.
#include "server/serving/requests.h"

#include <set>

namespace structattn::serving {
namespace {

int64_t TextBytes(const std::variant<std::string, std::vector<int32_t>>& content) {
  const auto* text = std::get_if<std::string>(&content);
  return text == nullptr ? 0 : static_cast<int64_t>(text->size());
}

int64_t CountParaphrases(const engine::Prompt& prompt) {
  std::set<int32_t> indices;
  for (const engine::Segment& segment : prompt.segments) {
    if (segment.paraphrase_index.has_value()) indices.insert(*segment.paraphrase_index);
  }
  return static_cast<int64_t>(indices.size());
}

}  // namespace

int64_t TokenizedBytes(const engine::Prompt& prompt) {
  int64_t bytes = 0;
  for (const engine::Segment& segment : prompt.segments) bytes += TextBytes(segment.content);
  return bytes;
}

int64_t TokenizedBytes(const GenerateRequest& request) {
  int64_t bytes = TokenizedBytes(request.prompt);
  const bool per_paraphrase =
      request.fusion.has_value() &&
      request.fusion->source == FusionRequest::Source::kPerParaphrasePrompts;
  if (per_paraphrase) bytes *= std::max<int64_t>(CountParaphrases(request.prompt), 1);
  for (const engine::BranchText& branch : request.branches) {
    bytes += static_cast<int64_t>(branch.cue.size());
  }
  return bytes;
}

int64_t TokenizedBytes(const ScoreRequest& request) {
  const int64_t prompt = TokenizedBytes(request.prompt);
  const bool joint = request.prompt.tokenization == engine::Tokenization::kJoint;
  int64_t bytes = prompt;
  for (const engine::ContinuationText& continuation : request.continuations) {
    const int64_t own = TextBytes(continuation.content);
    bytes += own + (joint && own > 0 ? prompt : 0);
  }
  return bytes;
}

int64_t TokenizedBytes(const ScoreRollingRequest& request) {
  return TextBytes(request.text.content);
}

int64_t TokenizedBytes(const InspectRequest& request) { return TokenizedBytes(request.prompt); }

}  // namespace structattn::serving
