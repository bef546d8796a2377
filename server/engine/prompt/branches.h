// Continuations of one prompt, each in a group of its own, and the tokens that they begin with.
// Pure: runs no model.
#ifndef STRUCTATTN_SERVER_ENGINE_PROMPT_BRANCHES_H_
#define STRUCTATTN_SERVER_ENGINE_PROMPT_BRANCHES_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/prompt/prompt.h"
#include "server/model/tokenizer/tokenizer.h"

namespace structattn::engine {

// A continuation in a group of its own: sees neither the other branches nor is seen by them.
struct Branch {
  int32_t group = 0;
  std::vector<int32_t> cue = {};  // Tokens of the group between the prompt and what is generated.
  // Without a cue: the prompt token from which the first token is predicted.
  int32_t predicted_from = 0;
  // What predicted_from does not see is no part of the branch's prompt: it counts neither against
  // the context length nor for penalties.
  bool per_paraphrase_prompt = false;
};

struct BranchText {
  int32_t group = 0;
  std::string cue;
  bool parse_special = false;  // The cue may hold special tokens, as a segment may.
};

// Encodes each cue alone. Errors are FieldErrors below "branches[i]": a group that the rule does
// not allow, one without a prompt token and without a cue, a cue that the context has no room for.
absl::StatusOr<std::vector<Branch>> EncodeBranches(std::span<const BranchText> texts,
                                                   const EncodedPrompt& prompt,
                                                   const Tokenizer& tokenizer,
                                                   const PromptLimits& limits);

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_PROMPT_BRANCHES_H_
