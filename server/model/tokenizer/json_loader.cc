// Vocabulary, merges and added tokens of a tokenizer.json; its other components are read by
// json_components.
#include "server/model/tokenizer/json_loader.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/json_components.h"
#include "server/model/tokenizer/json_reader.h"
#include "server/model/tokenizer/tokenizer_config.h"

namespace structattn {
namespace {

absl::Status ReadAddedTokens(const JsonNode& node, TokenizerConfig* config) {
  if (node.is_null()) return absl::OkStatus();
  STRUCTATTN_RETURN_IF_ERROR(node.ExpectArray());
  for (size_t i = 0; i < node.size(); ++i) {
    const JsonNode item = node.At(i);
    STRUCTATTN_RETURN_IF_ERROR(item.ExpectObject());
    for (const char* flag : {"special", "normalized", "lstrip", "rstrip", "single_word"}) {
      STRUCTATTN_RETURN_IF_ERROR(item[flag].Bool().status());
    }
    STRUCTATTN_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(item));
    STRUCTATTN_ASSIGN_OR_RETURN(token.id, item["id"].Integer(kMaxVocabularySize));
    config->added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

absl::Status ReadVocabulary(const JsonNode& node, BpeConfig* config) {
  STRUCTATTN_RETURN_IF_ERROR(node.ExpectObject());
  if (node.size() > static_cast<size_t>(kMaxVocabularySize)) {
    return node.Refuse(
        absl::StrFormat("%d tokens: at most %d are allowed", node.size(), kMaxVocabularySize));
  }
  config->vocabulary.reserve(node.size());
  for (const auto& [text, id] : node.value().items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= kMaxVocabularySize) {
      return node[text].Refuse(absl::StrFormat("id %s: an integer from 0 to %d is needed",
                                               id.dump(), kMaxVocabularySize - 1));
    }
    config->vocabulary.emplace_back(text, id.get<int32_t>());
  }
  return absl::OkStatus();
}

// "a b" or ["a", "b"].
std::optional<std::pair<std::string, std::string>> ReadMerge(const nlohmann::json& value) {
  if (value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string()) {
    return std::pair{value[0].get<std::string>(), value[1].get<std::string>()};
  }
  if (!value.is_string()) return std::nullopt;
  const auto& text = value.get_ref<const std::string&>();
  const size_t space = text.find(' ');
  if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
    return std::nullopt;
  }
  return std::pair{text.substr(0, space), text.substr(space + 1)};
}

absl::Status ReadMerges(const JsonNode& node, BpeConfig* config) {
  STRUCTATTN_RETURN_IF_ERROR(node.ExpectArray());
  config->merges.reserve(node.size());
  for (size_t i = 0; i < node.size(); ++i) {
    const nlohmann::json& value = node.value()[i];
    if (value.is_string() && value.get_ref<const std::string&>().starts_with("#version")) continue;
    auto merge = ReadMerge(value);
    if (!merge.has_value()) {
      return node.At(i).Refuse("\"LEFT RIGHT\" or [\"LEFT\", \"RIGHT\"] is needed");
    }
    config->merges.push_back(*std::move(merge));
  }
  return absl::OkStatus();
}

absl::Status ExpectAbsentOrEmpty(const JsonNode& node) {
  if (node.is_null() || (node.value().is_string() && node.value() == "")) return absl::OkStatus();
  return node.Refuse("is not supported");
}

// A number as the oracle's JSON parser reads the shortest digits of `value`: as an integer, which
// may round, times or divided by a power of ten, which rounds again. Sums of scores that are nearly
// equal depend on it.
double AsOracleReads(double value) {
  if (!std::isfinite(value)) return value;
  std::array<char, 40> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), std::abs(value),
                                 std::chars_format::scientific)
                       .ptr;
  uint64_t digits = 0;
  int exponent = 0;
  const char* c = text.data();
  for (bool behind_point = false; c < end && *c != 'e'; ++c) {
    if (*c == '.') {
      behind_point = true;
      continue;
    }
    digits = digits * 10 + static_cast<uint64_t>(*c - '0');
    exponent -= behind_point ? 1 : 0;
  }
  const char* const sign = c + 1;
  int written = 0;
  std::from_chars(sign + (*sign == '+' ? 1 : 0), end, written);
  exponent += written;
  const double power = std::strtod(absl::StrFormat("1e%d", std::abs(exponent)).c_str(), nullptr);
  const auto integer = static_cast<double>(digits);
  return std::copysign(exponent < 0 ? integer / power : integer * power, value);
}

absl::Status ReadUnigram(const JsonNode& node, UnigramConfig* config) {
  const JsonNode vocabulary = node["vocab"];
  STRUCTATTN_RETURN_IF_ERROR(vocabulary.ExpectArray());
  if (vocabulary.size() > static_cast<size_t>(kMaxVocabularySize)) {
    return vocabulary.Refuse(absl::StrFormat("%d tokens: at most %d are allowed", vocabulary.size(),
                                             kMaxVocabularySize));
  }
  for (size_t i = 0; i < vocabulary.size(); ++i) {
    const nlohmann::json& item = vocabulary.value()[i];
    if (!item.is_array() || item.size() != 2 || !item[0].is_string() || !item[1].is_number()) {
      return vocabulary.At(i).Refuse("[\"TOKEN\", SCORE] is needed");
    }
    config->vocabulary.emplace_back(item[0].get<std::string>(), static_cast<int32_t>(i));
    config->scores.push_back(AsOracleReads(item[1].get<double>()));
  }
  STRUCTATTN_ASSIGN_OR_RETURN(config->unk_id, node["unk_id"].Integer(kMaxVocabularySize));
  STRUCTATTN_ASSIGN_OR_RETURN(config->byte_fallback, node["byte_fallback"].BoolOr(false));
  return absl::OkStatus();
}

absl::Status ReadBpe(const JsonNode& node, BpeConfig* config) {
  const JsonNode dropout = node["dropout"];
  if (!dropout.is_null() && dropout.value() != 0) {
    return dropout.Refuse(absl::StrCat(dropout.value().dump(), ": supported is null"));
  }
  STRUCTATTN_RETURN_IF_ERROR(ExpectAbsentOrEmpty(node["continuing_subword_prefix"]));
  STRUCTATTN_RETURN_IF_ERROR(ExpectAbsentOrEmpty(node["end_of_word_suffix"]));
  if (!node["unk_token"].is_null()) {
    STRUCTATTN_ASSIGN_OR_RETURN(config->unk_token, node["unk_token"].String());
  }
  STRUCTATTN_ASSIGN_OR_RETURN(config->fuse_unk, node["fuse_unk"].BoolOr(false));
  STRUCTATTN_ASSIGN_OR_RETURN(config->byte_fallback, node["byte_fallback"].BoolOr(false));
  STRUCTATTN_ASSIGN_OR_RETURN(config->ignore_merges, node["ignore_merges"].BoolOr(false));
  STRUCTATTN_RETURN_IF_ERROR(ReadVocabulary(node["vocab"], config));
  return ReadMerges(node["merges"], config);
}

absl::Status ReadModel(const JsonNode& node, TokenizerConfig* config) {
  STRUCTATTN_RETURN_IF_ERROR(node.ExpectObject());
  const JsonNode type = node["type"];
  // The oldest files leave the type out.
  if (type.is_null() || type.value() == "BPE") return ReadBpe(node, &config->bpe);
  if (type.value() != "Unigram") {
    return type.Refuse(absl::StrCat(type.value().dump(),
                                    " is not supported: supported are \"BPE\" and \"Unigram\""));
  }
  if (config->pre_tokenizer.byte_level) return type.Refuse("is not supported with ByteLevel");
  return ReadUnigram(node, &config->unigram.emplace());
}

absl::StatusOr<TokenizerConfig> ReadConfig(const nlohmann::json& document) {
  const JsonNode root(document, "");
  STRUCTATTN_RETURN_IF_ERROR(root.ExpectObject());
  if (const JsonNode version = root["version"]; !version.is_null() && version.value() != "1.0") {
    return version.Refuse(absl::StrCat(version.value().dump(), ": supported is \"1.0\""));
  }
  TokenizerConfig config;
  for (const char* field : {"truncation", "padding"}) {
    if (!root[field].is_null()) {
      config.warnings.push_back(absl::StrCat(field, " is ignored: no prompt is cut or padded"));
    }
  }
  STRUCTATTN_RETURN_IF_ERROR(ReadAddedTokens(root["added_tokens"], &config));
  STRUCTATTN_RETURN_IF_ERROR(ReadNormalizer(root["normalizer"], &config));
  STRUCTATTN_RETURN_IF_ERROR(ReadPreTokenizer(root["pre_tokenizer"], &config));
  STRUCTATTN_RETURN_IF_ERROR(ReadPostProcessor(root["post_processor"], &config));
  STRUCTATTN_RETURN_IF_ERROR(ReadDecoder(root["decoder"], &config));
  STRUCTATTN_RETURN_IF_ERROR(ReadModel(root["model"], &config));
  if (config.pre_tokenizer.byte_level && config.bpe.byte_fallback) {
    return root["model"]["byte_fallback"].Refuse("true is not supported with ByteLevel");
  }
  return config;
}

}  // namespace

absl::StatusOr<AddedToken> ReadAddedToken(const JsonNode& node) {
  AddedToken token;
  STRUCTATTN_ASSIGN_OR_RETURN(token.content, node["content"].String());
  STRUCTATTN_ASSIGN_OR_RETURN(token.special, node["special"].BoolOr(false));
  STRUCTATTN_ASSIGN_OR_RETURN(token.normalized, node["normalized"].BoolOr(!token.special));
  STRUCTATTN_ASSIGN_OR_RETURN(token.lstrip, node["lstrip"].BoolOr(false));
  STRUCTATTN_ASSIGN_OR_RETURN(token.rstrip, node["rstrip"].BoolOr(false));
  STRUCTATTN_ASSIGN_OR_RETURN(token.single_word, node["single_word"].BoolOr(false));
  return token;
}

absl::StatusOr<TokenizerConfig> ReadTokenizerJson(std::string_view json) {
  STRUCTATTN_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJson(json));
  return ReadConfig(document);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(std::string_view json) {
  STRUCTATTN_ASSIGN_OR_RETURN(TokenizerConfig config, ReadTokenizerJson(json));
  return BuildTokenizer(std::move(config));
}

}  // namespace structattn
