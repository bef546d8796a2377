// See prompt_json.h.
#include "client/prompt_json.h"

#include <limits>
#include <utility>
#include <vector>

namespace structattn::client {
namespace {

// JSON that is nested deeper is no prompt, and the parser would recurse on it.
constexpr int kMaxDepth = 16;

template <typename Enum>
using Words = std::vector<std::pair<const char*, Enum>>;

const Words<v1::SegmentType>& SegmentTypes() {
  static const auto& words = *new Words<v1::SegmentType>{
      {"instruction", v1::SEGMENT_TYPE_INSTRUCTION}, {"few_shot", v1::SEGMENT_TYPE_FEW_SHOT},
      {"context", v1::SEGMENT_TYPE_CONTEXT},         {"question", v1::SEGMENT_TYPE_QUESTION},
      {"separator", v1::SEGMENT_TYPE_SEPARATOR},     {"answer_cue", v1::SEGMENT_TYPE_ANSWER_CUE}};
  return words;
}

template <typename Enum>
Enum ParseWord(const Words<Enum>& words, const std::string& word, const std::string& field) {
  std::string allowed;
  for (const auto& [name, value] : words) {
    if (word == name) return value;
    allowed += allowed.empty() ? name : std::string(", ") + name;
  }
  throw PromptError(field, "\"" + word + "\" is unknown; allowed are " + allowed);
}

const std::string& GetString(const Json& value, const std::string& field) {
  if (!value.is_string()) {
    throw PromptError(field, std::string("a string is needed, not ") + value.type_name());
  }
  return value.get_ref<const std::string&>();
}

bool GetBool(const Json& value, const std::string& field) {
  if (!value.is_boolean()) {
    throw PromptError(field, std::string("true or false is needed, not ") + value.type_name());
  }
  return value.get<bool>();
}

int32_t GetInt(const Json& value, const std::string& field) {
  const bool fits = value.is_number_integer() &&
                    (value.is_number_unsigned()
                         ? value.get<uint64_t>() <= std::numeric_limits<int32_t>::max()
                         : value.get<int64_t>() >= std::numeric_limits<int32_t>::min() &&
                               value.get<int64_t>() <= std::numeric_limits<int32_t>::max());
  if (!fits) throw PromptError(field, "a 32-bit integer is needed, not " + value.dump());
  return value.get<int32_t>();
}

void CheckArray(const Json& value, const std::string& field) {
  if (!value.is_array()) {
    throw PromptError(field, std::string("an array is needed, not ") + value.type_name());
  }
}

std::string Indexed(const std::string& field, size_t index) {
  return field + "[" + std::to_string(index) + "]";
}

void SetParaphraseIndex(const Json& value, const std::string& field, v1::Segment* segment) {
  if (segment->has_paraphrase_index()) {
    throw PromptError(field, "given twice (paraphrase_idx is another name of paraphrase_index)");
  }
  segment->set_paraphrase_index(GetInt(value, field));
}

void SetTokenIds(const Json& value, const std::string& field, v1::TokenIds* token_ids) {
  CheckArray(value, field);
  for (size_t i = 0; i < value.size(); ++i) {
    token_ids->add_ids(GetInt(value[i], Indexed(field, i)));
  }
}

// Sets what segments and continuations have both; false for another key.
template <typename Message>
bool SetContentField(const std::string& key, const Json& value, const std::string& field,
                     Message* message) {
  if (key == "parse_special") {
    message->set_parse_special(GetBool(value, field));
    return true;
  }
  if (key != "text" && key != "token_ids") return false;
  if (message->content_case() != Message::CONTENT_NOT_SET) {
    throw PromptError(field, "text and token_ids exclude each other");
  }
  if (key == "text") {
    message->set_text(GetString(value, field));
  } else {
    SetTokenIds(value, field, message->mutable_token_ids());
  }
  return true;
}

template <typename Message>
void CheckHasContent(const Message& message, const std::string& field) {
  if (message.content_case() != Message::CONTENT_NOT_SET) return;
  throw PromptError(field, "one of text, token_ids is needed");
}

void SetSegmentField(const std::string& key, const Json& value, const std::string& field,
                     v1::Segment* segment) {
  if (SetContentField(key, value, field, segment)) return;
  if (key == "type") {
    segment->set_type(ParseWord(SegmentTypes(), GetString(value, field), field));
  } else if (key == "paraphrase_index" || key == "paraphrase_idx") {
    SetParaphraseIndex(value, field, segment);
  } else if (key == "group") {
    segment->set_group(GetInt(value, field));
  } else {
    throw PromptError(field,
                      "unknown field; allowed are type, text, token_ids, paraphrase_index, group, "
                      "parse_special");
  }
}

void ParseSegments(const Json& segments, v1::Prompt* prompt) {
  CheckArray(segments, "segments");
  for (size_t i = 0; i < segments.size(); ++i) {
    const std::string field = Indexed("segments", i);
    if (!segments[i].is_object()) throw PromptError(field, "an object is needed");
    v1::Segment* segment = prompt->add_segments();
    const std::string prefix = field + ".";
    for (const auto& [key, value] : segments[i].items()) {
      SetSegmentField(key, value, prefix + key, segment);
    }
    if (segment->type() == v1::SEGMENT_TYPE_UNSPECIFIED) {
      throw PromptError(prefix + "type", "missing");
    }
    CheckHasContent(*segment, field);
  }
}

void ParseRule(const Json& value, v1::Rule* rule) {
  rule->Clear();
  if (value.is_string()) {
    rule->set_preset(ParseRulePreset(value.get<std::string>(), "rule"));
    return;
  }
  if (!value.is_object() || value.size() != 1 || !value.contains("visible")) {
    throw PromptError("rule", "a preset's name or {\"visible\": [[..], ..]} is needed");
  }
  const Json& rows = value["visible"];
  CheckArray(rows, "rule.visible");
  v1::RuleTable* table = rule->mutable_table();
  for (size_t g = 0; g < rows.size(); ++g) {
    const std::string field = Indexed("rule.visible", g);
    CheckArray(rows[g], field);
    v1::VisibleGroups* row = table->add_visible();
    for (size_t i = 0; i < rows[g].size(); ++i) {
      row->add_groups(GetInt(rows[g][i], Indexed(field, i)));
    }
  }
}

// A text, an array of token ids, or an object that says more.
v1::Continuation ParseContinuation(const Json& value, const std::string& field) {
  v1::Continuation continuation;
  if (value.is_string()) {
    continuation.set_text(value.get_ref<const std::string&>());
  } else if (value.is_array()) {
    SetTokenIds(value, field, continuation.mutable_token_ids());
  } else if (value.is_object()) {
    for (const auto& [key, part] : value.items()) {
      std::string part_field = field;
      part_field.append(".").append(key);
      if (SetContentField(key, part, part_field, &continuation)) continue;
      throw PromptError(part_field, "unknown field; allowed are text, token_ids, parse_special");
    }
    CheckHasContent(continuation, field);
  } else {
    throw PromptError(field, std::string("a string, an array of token ids or an object is needed, "
                                         "not ") +
                                 value.type_name());
  }
  return continuation;
}

std::vector<v1::Continuation> ParseContinuations(const Json& value) {
  std::vector<v1::Continuation> continuations;
  CheckArray(value, "continuations");
  for (size_t i = 0; i < value.size(); ++i) {
    continuations.push_back(ParseContinuation(value[i], Indexed("continuations", i)));
  }
  return continuations;
}

// Parses with a bound on depth and without exceptions of the library reaching the caller.
Json ParseText(std::string_view text) {
  const Json::parser_callback_t bounded = [](int depth, Json::parse_event_t, Json&) {
    if (depth > kMaxDepth) throw PromptError("", "nested too deeply for a prompt");
    return true;
  };
  try {
    return Json::parse(text, bounded);
  } catch (const Json::parse_error& error) {
    throw PromptError("", "not JSON: byte " + std::to_string(error.byte));
  } catch (const Json::exception&) {  // The text has a number that no double holds.
    throw PromptError("", "not JSON: a number is out of range");
  }
}

}  // namespace

v1::RulePreset ParseRulePreset(const std::string& word, const std::string& field) {
  static const auto& words = *new Words<v1::RulePreset>{{"anchored", v1::RULE_PRESET_ANCHORED},
                                                        {"shared", v1::RULE_PRESET_SHARED},
                                                        {"isolated", v1::RULE_PRESET_ISOLATED},
                                                        {"causal", v1::RULE_PRESET_CAUSAL}};
  return ParseWord(words, word, field);
}

v1::PositionPolicy ParsePositions(const std::string& word, const std::string& field) {
  static const auto& words = *new Words<v1::PositionPolicy>{
      {"sequential", v1::POSITION_POLICY_SEQUENTIAL}, {"aligned", v1::POSITION_POLICY_ALIGNED}};
  return ParseWord(words, word, field);
}

v1::Tokenization ParseTokenization(const std::string& word, const std::string& field) {
  static const auto& words = *new Words<v1::Tokenization>{
      {"joint", v1::TOKENIZATION_JOINT}, {"per_segment", v1::TOKENIZATION_PER_SEGMENT}};
  return ParseWord(words, word, field);
}

std::string SegmentTypeWord(v1::SegmentType type) {
  for (const auto& [name, value] : SegmentTypes()) {
    if (value == type) return name;
  }
  return "unspecified";
}

PromptInput ParsePrompt(std::string_view text, const v1::Prompt& defaults) {
  const Json json = ParseText(text);
  if (!json.is_object()) throw PromptError("", "a prompt is a JSON object");
  PromptInput input{.id = nullptr, .answers = nullptr, .prompt = defaults};
  v1::Prompt& prompt = input.prompt;
  for (const auto& [key, value] : json.items()) {
    if (key == "id") {
      if (!value.is_string() && !value.is_number_integer() && !value.is_null()) {
        throw PromptError("id", "a string or an integer is needed");
      }
      input.id = value;
    } else if (key == "answers") {
      input.answers = value;
    } else if (key == "segments") {
      ParseSegments(value, &prompt);
    } else if (key == "rule") {
      ParseRule(value, prompt.mutable_rule());
    } else if (key == "positions") {
      prompt.set_positions(ParsePositions(GetString(value, key), key));
    } else if (key == "tokenization") {
      prompt.set_tokenization(ParseTokenization(GetString(value, key), key));
    } else if (key == "add_special_tokens") {
      prompt.set_add_special_tokens(GetBool(value, key));
    } else if (key == "continuations") {
      input.continuations = ParseContinuations(value);
    } else {
      throw PromptError(key,
                        "unknown field; allowed are id, segments, answers, rule, positions, "
                        "tokenization, add_special_tokens, continuations");
    }
  }
  if (!json.contains("segments")) throw PromptError("segments", "missing");
  return input;
}

}  // namespace structattn::client
