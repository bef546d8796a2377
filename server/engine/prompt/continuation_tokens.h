// What follows a prompt, from text to tokens: continuations to score, windows over a long text.
// Text joins as the prompt's tokenization says, with the border of lm-evaluation-harness. Pure:
// runs no model.
#ifndef STRUCTATTN_SERVER_ENGINE_PROMPT_CONTINUATION_TOKENS_H_
#define STRUCTATTN_SERVER_ENGINE_PROMPT_CONTINUATION_TOKENS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/prompt/prompt.h"
#include "server/model/model_config.h"

namespace structattn::engine {

// A prompt and everything that is read from its one pass. A request has several where the text
// behind a prompt changes the prompt's own tokens, or where one text takes several windows.
struct ScoredPrompt {
  EncodedPrompt prompt;
  int32_t group = 0;  // The continuations' tokens are in it.
  // Scored each on its own, right behind the prompt; none is empty.
  std::vector<std::vector<int32_t>> continuations = {};
  // The prompt's own tokens from this index on (at least 1) are scored, each from the one before.
  std::optional<int32_t> prompt_logprobs_begin = {};
  // Prompt tokens after which candidates are read, ascending.
  std::vector<int32_t> read_outs = {};
};

// What is scored behind a prompt, as it was given.
struct ContinuationText {
  std::variant<std::string, std::vector<int32_t>> content;  // Text, or token ids.
  bool parse_special = false;                               // Text may hold special tokens.

  bool is_text() const { return std::holds_alternative<std::string>(content); }
};

// Continuations of one prompt, ready to be scored.
struct EncodedContinuations {
  // The first is the prompt on its own, whether it has continuations or not; then, for each way in
  // which continuations change its last tokens (words that grow together), the changed prompt.
  std::vector<ScoredPrompt> prompts;
  struct Place {
    int32_t prompt;
    int32_t continuation;
  };
  std::vector<Place> places;  // One a continuation.
};

// For text and TOKENIZATION_JOINT: ids = encode(prompt + continuation), the border at
// len(encode(prompt)); special tokens, groups and segments of the prompt's tokens come from the
// prompt alone. PER_SEGMENT encodes the continuation alone. Before that, where continuations are
// text, white space at the end of the prompt moves to their beginning, as in
// lm-evaluation-harness (Python's rstrip). The last token of a continuation is only predicted, so
// both may have one token more than the context. The prompt has passed CheckPrompt. Errors are
// those of EncodePrompt or FieldErrors at "continuations[i]".
absl::StatusOr<EncodedContinuations> EncodeContinuations(
    Prompt prompt, int32_t group, std::span<const ContinuationText> continuations,
    const Tokenizer& tokenizer, const PromptLimits& limits);

// A text longer than the context, as prompts with one continuation each that hold every token of
// the text once, in order (lm-evaluation-harness's rolling windows with one token of context).
// `before`: the token in front of the text. At least one text token, window_tokens at least 1.
std::vector<ScoredPrompt> CutIntoWindows(std::span<const int32_t> text_ids, int32_t before,
                                         int32_t window_tokens);

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_PROMPT_CONTINUATION_TOKENS_H_
