// Reads the added tokens of the files around tokenizer.json and numbers them as PyPI `tokenizers`
// does when they are added to the tokenizer.
#include "server/model/tokenizer/other_added_tokens.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/json_loader.h"
#include "server/model/tokenizer/json_reader.h"

namespace structattn {
namespace {

constexpr char kConfigFile[] = "tokenizer_config.json";
constexpr char kAddedTokensFile[] = "added_tokens.json";
constexpr char kSpecialTokensFile[] = "special_tokens_map.json";

// The keys under which transformers names special tokens; the last two hold lists.
constexpr const char* kNamedTokens[] = {
    "bos_token",           "eos_token", "unk_token",  "sep_token",
    "pad_token",           "cls_token", "mask_token", "additional_special_tokens",
    "extra_special_tokens"};

absl::StatusOr<nlohmann::json> ParseFile(std::string_view name, std::string_view text) {
  if (text.empty()) return nlohmann::json::object();
  absl::StatusOr<nlohmann::json> document = ParseJson(text);
  if (document.ok() && document->is_object()) return document;
  return absl::InvalidArgumentError(absl::StrCat(
      std::string(name), ": ",
      document.ok() ? "an object is needed" : std::string(document.status().message())));
}

absl::StatusOr<std::vector<AddedToken>> ReadDecoder(const JsonNode& node) {
  STRUCTATTN_RETURN_IF_ERROR(node.ExpectObject());
  std::vector<AddedToken> tokens;
  for (const auto& [key, value] : node.value().items()) {
    const JsonNode item = node[key];
    STRUCTATTN_RETURN_IF_ERROR(item.ExpectObject());
    STRUCTATTN_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(item));
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
    if (error != std::errc() || end != key.data() + key.size() || token.id < 0 ||
        token.id >= kMaxVocabularySize) {
      return item.Refuse(
          absl::StrFormat("an id from 0 to %d is needed as key", kMaxVocabularySize - 1));
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

// A token is written as a string or as an object with its content.
void CollectContents(const nlohmann::json& value, absl::flat_hash_set<std::string>* contents) {
  if (value.is_string()) {
    contents->insert(value.get<std::string>());
  } else if (value.is_array()) {
    for (const nlohmann::json& item : value) CollectContents(item, contents);
  } else if (value.is_object() && value.contains("content")) {
    CollectContents(value["content"], contents);
  }
}

absl::flat_hash_set<std::string> NamedTokens(const nlohmann::json& tokenizer_config,
                                             const nlohmann::json& special_tokens) {
  absl::flat_hash_set<std::string> contents;
  for (const nlohmann::json* document : {&tokenizer_config, &special_tokens}) {
    for (const char* key : kNamedTokens) {
      if (document->contains(key)) CollectContents((*document)[key], &contents);
    }
  }
  return contents;
}

absl::StatusOr<std::vector<AddedToken>> ReadAddedTokensFile(
    const JsonNode& root, const absl::flat_hash_set<std::string>& special) {
  std::vector<AddedToken> tokens;
  for (const auto& [content, value] : root.value().items()) {
    AddedToken token;
    token.content = content;
    STRUCTATTN_ASSIGN_OR_RETURN(token.id, root[content].Integer(kMaxVocabularySize));
    token.special = special.contains(content);
    token.normalized = !token.special;
    tokens.push_back(std::move(token));
  }
  return tokens;
}

absl::StatusOr<std::vector<AddedToken>> ReadOtherTokens(const TokenizerFiles& files) {
  STRUCTATTN_ASSIGN_OR_RETURN(const nlohmann::json config,
                              ParseFile(kConfigFile, files.tokenizer_config));
  const JsonNode root(config, kConfigFile);
  if (const JsonNode decoder = root["added_tokens_decoder"]; !decoder.is_null()) {
    return ReadDecoder(decoder);
  }
  if (files.added_tokens.empty()) return std::vector<AddedToken>();
  STRUCTATTN_ASSIGN_OR_RETURN(const nlohmann::json special_tokens,
                              ParseFile(kSpecialTokensFile, files.special_tokens_map));
  STRUCTATTN_ASSIGN_OR_RETURN(const nlohmann::json added,
                              ParseFile(kAddedTokensFile, files.added_tokens));
  return ReadAddedTokensFile(JsonNode(added, kAddedTokensFile),
                             NamedTokens(config, special_tokens));
}

bool HasSmallerId(const AddedToken& a, const AddedToken& b) { return a.id < b.id; }

}  // namespace

absl::Status AddTokensOfOtherFiles(const TokenizerFiles& files, TokenizerConfig* config) {
  STRUCTATTN_ASSIGN_OR_RETURN(std::vector<AddedToken> others, ReadOtherTokens(files));
  absl::flat_hash_set<std::string> known;
  for (const AddedToken& token : config->added_tokens) known.insert(token.content);
  std::erase_if(others, [&](const AddedToken& token) {
    return token.content.empty() || known.contains(token.content);
  });
  if (others.empty()) return absl::OkStatus();
  absl::flat_hash_map<std::string_view, int32_t> ids;
  for (const auto& [text, id] : VocabularyOf(*config)) ids.emplace(text, id);

  std::vector<AddedToken>& tokens = config->added_tokens;
  std::stable_sort(tokens.begin(), tokens.end(), HasSmallerId);
  std::stable_sort(others.begin(), others.end(), HasSmallerId);
  auto next_id = static_cast<int32_t>(ids.size());
  std::vector<AddedToken> merged, behind;
  size_t taken = 0;
  const auto take_until = [&](int32_t id) {
    for (; taken < tokens.size() && tokens[taken].id < id; ++taken) {
      if (!ids.contains(tokens[taken].content)) next_id = std::max(next_id, tokens[taken].id + 1);
      merged.push_back(std::move(tokens[taken]));
    }
  };
  for (AddedToken& token : others) {
    take_until(token.id);
    if (const auto found = ids.find(token.content); found != ids.end()) {
      token.id = found->second;
      merged.push_back(std::move(token));
    } else if (token.id == next_id && (taken == tokens.size() || tokens[taken].id > token.id)) {
      ++next_id;
      merged.push_back(std::move(token));
    } else {
      behind.push_back(std::move(token));
    }
  }
  take_until(kMaxVocabularySize);
  for (AddedToken& token : behind) {
    config->warnings.push_back(absl::StrFormat(
        "\"%s\" has id %d in the files beside tokenizer.json and gets id %d, the next free one",
        token.content, token.id, next_id));
    token.id = next_id++;
    merged.push_back(std::move(token));
  }
  tokens = std::move(merged);
  return absl::OkStatus();
}

}  // namespace structattn
