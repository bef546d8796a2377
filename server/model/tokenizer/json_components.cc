// normalizer, pre_tokenizer, post_processor and decoder of a tokenizer.json. Never skips what it
// does not know.
#include "server/model/tokenizer/json_components.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/split_pattern.h"

namespace structattn {
namespace {

// The parts of a Sequence, of nested ones too, or the component itself; none for null.
absl::Status Flatten(const JsonNode& node, const std::string& parts_field,
                     std::vector<std::pair<std::string, JsonNode>>* out) {
  if (node.is_null()) return absl::OkStatus();
  STRUCTATTN_RETURN_IF_ERROR(node.ExpectObject());
  STRUCTATTN_ASSIGN_OR_RETURN(std::string type, node["type"].String());
  if (type != "Sequence") {
    out->emplace_back(std::move(type), node);
    return absl::OkStatus();
  }
  const JsonNode parts = node[parts_field];
  STRUCTATTN_RETURN_IF_ERROR(parts.ExpectArray());
  for (size_t i = 0; i < parts.size(); ++i) {
    STRUCTATTN_RETURN_IF_ERROR(Flatten(parts.At(i), parts_field, out));
  }
  return absl::OkStatus();
}

absl::Status Unknown(const JsonNode& node, const std::string& type, const std::string& allowed) {
  return node.Refuse(absl::StrCat("\"", type, "\" is not supported: supported are ", allowed));
}

// The front of a text, but not of its further lines.
constexpr std::string_view kTextStartRegex = "(?<!\n)^";

// The text of {"String": ...}, or of a regular expression without a character that means more than
// itself.
absl::StatusOr<std::string> LiteralPattern(const JsonNode& node) {
  const bool is_regex = node["String"].is_null();
  const JsonNode text = node[is_regex ? "Regex" : "String"];
  STRUCTATTN_ASSIGN_OR_RETURN(std::string pattern, text.String());
  if (pattern.empty()) return text.Refuse("an empty pattern is not supported");
  if (is_regex && pattern.find_first_of("\\^$.|?*+()[]{}") != std::string::npos) {
    return text.Refuse(
        absl::StrCat("\"", pattern, "\" is not supported: supported are literal texts"));
  }
  return pattern;
}

// The part of a pattern that is a regular expression, empty for none.
std::string_view RegexOf(const JsonNode& node) {
  const nlohmann::json& regex = node["Regex"].value();
  return regex.is_string() ? std::string_view(regex.get_ref<const std::string&>()) : "";
}

absl::StatusOr<Metaspace> ReadMetaspace(const JsonNode& node) {
  Metaspace metaspace;
  STRUCTATTN_ASSIGN_OR_RETURN(metaspace.replacement, node["replacement"].String());
  STRUCTATTN_ASSIGN_OR_RETURN(metaspace.split, node["split"].BoolOr(true));
  STRUCTATTN_ASSIGN_OR_RETURN(const bool add_prefix, node["add_prefix_space"].BoolOr(true));
  std::string scheme = "always";
  if (!node["prepend_scheme"].is_null()) {
    STRUCTATTN_ASSIGN_OR_RETURN(scheme, node["prepend_scheme"].String());
  }
  if (metaspace.replacement.empty()) return node["replacement"].Refuse("is empty");
  if (scheme == "first") {
    metaspace.prepend = Metaspace::kFirst;
  } else if (scheme == "never") {
    metaspace.prepend = Metaspace::kNever;
  } else if (scheme != "always") {
    return Unknown(node["prepend_scheme"], scheme, "first, never, always");
  }
  if (!add_prefix && metaspace.prepend != Metaspace::kNever) {
    return node["add_prefix_space"].Refuse("false contradicts prepend_scheme");
  }
  return metaspace;
}

absl::StatusOr<SplitBehavior> ReadBehavior(const JsonNode& node) {
  static constexpr std::pair<std::string_view, SplitBehavior> kBehaviors[] = {
      {"Isolated", SplitBehavior::kIsolated},
      {"Removed", SplitBehavior::kRemoved},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  STRUCTATTN_ASSIGN_OR_RETURN(const std::string name, node.String());
  for (const auto& [known, behavior] : kBehaviors) {
    if (name == known) return behavior;
  }
  return Unknown(node, name, "Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous");
}

absl::StatusOr<SplitPattern> ReadSplitPattern(const JsonNode& node) {
  if (node["Regex"].is_null()) {
    STRUCTATTN_ASSIGN_OR_RETURN(std::string text, LiteralPattern(node));
    return SplitPattern::Literal(std::move(text));
  }
  STRUCTATTN_ASSIGN_OR_RETURN(const std::string regex, node["Regex"].String());
  std::optional<SplitPattern> pattern = SplitPattern::FromRegex(regex);
  if (pattern.has_value()) return *std::move(pattern);
  return node["Regex"].Refuse(absl::StrCat(
      "\"", regex,
      "\" is not supported: supported are those of GPT-2, Llama-3 and Qwen2 and runs of one set "
      "such as \\s?\\p{L}+"));
}

absl::StatusOr<SplitStep> ReadSplit(const JsonNode& node) {
  STRUCTATTN_ASSIGN_OR_RETURN(SplitPattern pattern, ReadSplitPattern(node["pattern"]));
  SplitStep step{.pattern = std::move(pattern)};
  STRUCTATTN_ASSIGN_OR_RETURN(step.behavior, ReadBehavior(node["behavior"]));
  STRUCTATTN_ASSIGN_OR_RETURN(step.invert, node["invert"].BoolOr(false));
  return step;
}

absl::StatusOr<SplitStep> ReadDigits(const JsonNode& node) {
  STRUCTATTN_ASSIGN_OR_RETURN(const bool individual, node["individual_digits"].BoolOr(false));
  return SplitStep{.pattern = SplitPattern::Digits(individual)};
}

absl::Status ReadByteLevel(const JsonNode& node, PreTokenizerConfig* config) {
  STRUCTATTN_ASSIGN_OR_RETURN(const bool prefix, node["add_prefix_space"].BoolOr(false));
  STRUCTATTN_ASSIGN_OR_RETURN(const bool use_regex, node["use_regex"].BoolOr(true));
  if (prefix) return node["add_prefix_space"].Refuse("true is not supported");
  if (use_regex) config->splits.push_back({.pattern = SplitPattern::Words(WordPattern::kGpt2)});
  config->byte_level = true;
  return absl::OkStatus();
}

absl::Status AddSpecialToken(const JsonNode& processor, const JsonNode& piece,
                             std::vector<int32_t>* ids) {
  STRUCTATTN_ASSIGN_OR_RETURN(const std::string name, piece["id"].String());
  const JsonNode token_ids = processor["special_tokens"][name]["ids"];
  STRUCTATTN_RETURN_IF_ERROR(token_ids.ExpectArray());
  for (size_t i = 0; i < token_ids.size(); ++i) {
    STRUCTATTN_ASSIGN_OR_RETURN(const int32_t id, token_ids.At(i).Integer(kMaxVocabularySize));
    ids->push_back(id);
  }
  return absl::OkStatus();
}

absl::Status ReadTemplate(const JsonNode& node, TokenizerConfig* config) {
  const JsonNode single = node["single"];
  STRUCTATTN_RETURN_IF_ERROR(single.ExpectArray());
  std::vector<int32_t> prefix, suffix;
  int sequences = 0;
  for (size_t i = 0; i < single.size(); ++i) {
    const JsonNode piece = single.At(i);
    if (!piece["SpecialToken"].is_null()) {
      STRUCTATTN_RETURN_IF_ERROR(
          AddSpecialToken(node, piece["SpecialToken"], sequences == 0 ? &prefix : &suffix));
    } else if (const JsonNode id = piece["Sequence"]["id"]; id.value() == "A") {
      ++sequences;
    } else {
      return piece.Refuse("only SpecialToken and Sequence A are supported");
    }
  }
  if (sequences != 1) return single.Refuse("Sequence A must be there once");
  // Of several templates in a Sequence the later one is wrapped around the earlier.
  config->special_prefix.insert(config->special_prefix.begin(), prefix.begin(), prefix.end());
  config->special_suffix.insert(config->special_suffix.end(), suffix.begin(), suffix.end());
  return absl::OkStatus();
}

// What has been read of a SentencePiece decoder.
struct DecoderParts {
  bool replaces = false;
  bool fuses = false;
  bool strips = false;
};

// `(?<!\n)^TEXT` replaced by nothing is a Strip of one TEXT.
absl::Status ReadStrip(const std::string& type, const JsonNode& node, DecoderConfig* config) {
  if (type == "Replace") {
    config->strip_content = RegexOf(node["pattern"]).substr(kTextStartRegex.size());
    config->strip_start = 1;
    if (node["content"].value() != "") return node["content"].Refuse("only \"\" is supported");
  } else {
    STRUCTATTN_ASSIGN_OR_RETURN(config->strip_content, node["content"].String());
    STRUCTATTN_ASSIGN_OR_RETURN(config->strip_start, node["start"].Integer(1 << 16));
    STRUCTATTN_ASSIGN_OR_RETURN(const int32_t stop, node["stop"].Integer(1 << 16));
    if (stop != 0) return node["stop"].Refuse("only 0 is supported");
  }
  if (config->strip_content.empty()) return node["content"].Refuse("is empty");
  return absl::OkStatus();
}

// Replace and ByteFallback, in either order, then Fuse, then Strip; each may be missing.
absl::Status ReadSentencePiecePart(const std::string& type, const JsonNode& node,
                                   DecoderParts* parts, DecoderConfig* config) {
  const bool strips = type == "Strip" ||
                      (type == "Replace" && RegexOf(node["pattern"]).starts_with(kTextStartRegex));
  if (strips && parts->fuses && !parts->strips) {
    parts->strips = true;
    return ReadStrip(type, node, config);
  }
  if (type == "Replace" && !parts->replaces && !parts->fuses) {
    parts->replaces = true;
    config->replaces_bytes = config->byte_fallback;
    STRUCTATTN_ASSIGN_OR_RETURN(config->pattern, LiteralPattern(node["pattern"]));
    STRUCTATTN_ASSIGN_OR_RETURN(config->content, node["content"].String());
  } else if (type == "ByteFallback" && !config->byte_fallback && !parts->fuses) {
    config->byte_fallback = true;
  } else if (type == "Fuse" && !parts->fuses) {
    parts->fuses = true;
  } else if (type == "Replace" || type == "ByteFallback" || type == "Fuse" || type == "Strip") {
    return node.Refuse(absl::StrCat(type,
                                    " is not supported here: supported are Replace and "
                                    "ByteFallback once each, then Fuse, then Strip"));
  } else {
    return Unknown(node, type, "ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadNormalizer(const JsonNode& node, TokenizerConfig* config) {
  std::vector<std::pair<std::string, JsonNode>> parts;
  STRUCTATTN_RETURN_IF_ERROR(Flatten(node, "normalizers", &parts));
  for (const auto& [type, part] : parts) {
    NormalizerStep step{};
    if (type == "NFC") {
      step.kind = NormalizerStep::kNfc;
    } else if (type == "Prepend") {
      step.kind = NormalizerStep::kPrepend;
      STRUCTATTN_ASSIGN_OR_RETURN(step.content, part["prepend"].String());
    } else if (type == "Replace" && RegexOf(part["pattern"]) == kTextStartRegex) {
      step.kind = NormalizerStep::kPrepend;
      STRUCTATTN_ASSIGN_OR_RETURN(step.content, part["content"].String());
    } else if (type == "Replace") {
      step.kind = NormalizerStep::kReplace;
      STRUCTATTN_ASSIGN_OR_RETURN(step.pattern, LiteralPattern(part["pattern"]));
      STRUCTATTN_ASSIGN_OR_RETURN(step.content, part["content"].String());
    } else {
      return Unknown(part, type, "NFC, Prepend, Replace");
    }
    config->normalizer.push_back(std::move(step));
  }
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const JsonNode& node, TokenizerConfig* config) {
  std::vector<std::pair<std::string, JsonNode>> parts;
  STRUCTATTN_RETURN_IF_ERROR(Flatten(node, "pretokenizers", &parts));
  PreTokenizerConfig& result = config->pre_tokenizer;
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto& [type, part] = parts[i];
    const bool last = i + 1 == parts.size();
    if (type == "Digits") {
      STRUCTATTN_ASSIGN_OR_RETURN(SplitStep step, ReadDigits(part));
      result.splits.push_back(std::move(step));
    } else if (type == "Split") {
      STRUCTATTN_ASSIGN_OR_RETURN(SplitStep step, ReadSplit(part));
      result.splits.push_back(std::move(step));
    } else if (type == "ByteLevel" && last) {
      STRUCTATTN_RETURN_IF_ERROR(ReadByteLevel(part, &result));
    } else if (type == "Metaspace" && parts.size() == 1) {
      STRUCTATTN_ASSIGN_OR_RETURN(result.metaspace, ReadMetaspace(part));
    } else {
      return Unknown(part, type, "Split, Digits, ByteLevel behind them, Metaspace alone");
    }
  }
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const JsonNode& node, TokenizerConfig* config) {
  std::vector<std::pair<std::string, JsonNode>> parts;
  STRUCTATTN_RETURN_IF_ERROR(Flatten(node, "processors", &parts));
  for (const auto& [type, part] : parts) {
    if (type == "ByteLevel") continue;  // Changes offsets only.
    if (type != "TemplateProcessing") return Unknown(part, type, "ByteLevel, TemplateProcessing");
    STRUCTATTN_RETURN_IF_ERROR(ReadTemplate(part, config));
  }
  return absl::OkStatus();
}

absl::Status ReadDecoder(const JsonNode& node, TokenizerConfig* config) {
  std::vector<std::pair<std::string, JsonNode>> parts;
  STRUCTATTN_RETURN_IF_ERROR(Flatten(node, "decoders", &parts));
  if (parts.empty()) return node.Refuse("a decoder is needed");
  DecoderConfig& result = config->decoder;
  const auto& [first_type, first] = parts.front();
  if (parts.size() == 1 && first_type == "ByteLevel") {
    result.kind = DecoderConfig::kByteLevel;
    return absl::OkStatus();
  }
  if (parts.size() == 1 && first_type == "Metaspace") {
    STRUCTATTN_ASSIGN_OR_RETURN(const Metaspace metaspace, ReadMetaspace(first));
    result.kind = DecoderConfig::kMetaspace;
    result.pattern = metaspace.replacement;
    result.drops_prefix = metaspace.prepend != Metaspace::kNever;
    return absl::OkStatus();
  }
  result.kind = DecoderConfig::kSentencePiece;
  DecoderParts read;
  for (const auto& [type, part] : parts) {
    STRUCTATTN_RETURN_IF_ERROR(ReadSentencePiecePart(type, part, &read, &result));
  }
  return absl::OkStatus();
}

}  // namespace structattn
