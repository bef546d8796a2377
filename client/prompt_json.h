// Turns the JSON form of a prompt (one object in a file, or one in a line of JSONL) into proto.
// It refuses unknown fields and wrong types by their path. Everything about meaning (ranges, rules)
// is left to the server, so that there is one judge.
#ifndef STRUCTATTN_CLIENT_PROMPT_JSON_H_
#define STRUCTATTN_CLIENT_PROMPT_JSON_H_

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "structattn/v1/inference_service.pb.h"

namespace structattn::client {

using Json = nlohmann::ordered_json;

// What is wrong with a prompt's JSON, and where ("segments[2].type"; empty: the whole).
class PromptError : public std::runtime_error {
 public:
  PromptError(std::string field, const std::string& message)
      : std::runtime_error(message), field_(std::move(field)) {}
  const std::string& field() const { return field_; }

 private:
  std::string field_;
};

// A prompt, and what comes with it in a file but is not part of it.
struct PromptInput {
  Json id;       // As given; null when missing.
  Json answers;  // Passed through to the result; null when missing.
  v1::Prompt prompt;
  std::vector<v1::Continuation> continuations =
      {};  // `score` needs them; the other commands ignore them.
};

// Fills what the JSON names; `defaults` holds what the flags say of a prompt that does not.
// Throws PromptError.
PromptInput ParsePrompt(std::string_view text, const v1::Prompt& defaults);

// They turn "anchored" into RULE_PRESET_ANCHORED and so on, and throw PromptError with the allowed
// words.
v1::RulePreset ParseRulePreset(const std::string& word, const std::string& field);
v1::PositionPolicy ParsePositions(const std::string& word, const std::string& field);
v1::Tokenization ParseTokenization(const std::string& word, const std::string& field);

// "instruction" for SEGMENT_TYPE_INSTRUCTION.
std::string SegmentTypeWord(v1::SegmentType type);

}  // namespace structattn::client

#endif  // STRUCTATTN_CLIENT_PROMPT_JSON_H_
