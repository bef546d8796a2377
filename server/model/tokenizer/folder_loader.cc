// Tokenizer::FromFolder: tokenizer.json or, where there is none, tokenizer.model as transformers'
// LlamaConverter converts it; and the added tokens of the files around them.
#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/json_loader.h"
#include "server/model/tokenizer/other_added_tokens.h"
#include "server/model/tokenizer/sentencepiece_config.h"
#include "server/model/tokenizer/sentencepiece_model.h"
#include "server/model/tokenizer/tokenizer_config.h"

namespace structattn {
namespace {

constexpr char kJsonFile[] = "tokenizer.json";
constexpr char kModelFile[] = "tokenizer.model";
constexpr char kConfigFile[] = "tokenizer_config.json";

constexpr int32_t kUnigramModel = 1;
constexpr int32_t kBpeModel = 2;

absl::Status OfFile(std::string_view file, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(std::string(file), ": ", std::string(status.message())));
}

// The id of the piece that tokenizer_config.json names by `key`, as a string or as an object with
// its content, or else of the usual one.
absl::StatusOr<int32_t> NamedPiece(const JsonNode& config, const std::string& key,
                                   const std::string& usual,
                                   const std::vector<std::string>& pieces) {
  const nlohmann::json& named = config[key].value();
  const nlohmann::json& content =
      named.is_object() && named.contains("content") ? named["content"] : named;
  std::string text = content.is_string() ? content.get<std::string>() : "";
  if (text.empty()) text = usual;
  const auto found = std::find(pieces.begin(), pieces.end(), text);
  if (found == pieces.end()) {
    return config[key].Refuse(absl::StrCat("\"", text, "\" is no piece of ", kModelFile));
  }
  return static_cast<int32_t>(found - pieces.begin());
}

absl::Status AddSpecialPieces(const JsonNode& config, const std::vector<std::string>& pieces,
                              TokenizerConfig* result) {
  STRUCTATTN_ASSIGN_OR_RETURN(const bool adds_bos, config["add_bos_token"].BoolOr(true));
  STRUCTATTN_ASSIGN_OR_RETURN(const bool adds_eos, config["add_eos_token"].BoolOr(false));
  if (adds_bos) {
    STRUCTATTN_ASSIGN_OR_RETURN(const int32_t id, NamedPiece(config, "bos_token", "<s>", pieces));
    result->special_prefix.push_back(id);
  }
  if (adds_eos) {
    STRUCTATTN_ASSIGN_OR_RETURN(const int32_t id, NamedPiece(config, "eos_token", "</s>", pieces));
    result->special_suffix.push_back(id);
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerConfig> ConvertModel(const TokenizerFiles& files) {
  absl::StatusOr<SentencePieceModel> model = ParseSentencePieceModel(files.sentencepiece);
  if (!model.ok()) return OfFile(kModelFile, model.status());
  if (model->model_type != kUnigramModel && model->model_type != kBpeModel) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: trainer_spec.model_type %d: supported are 1 (Unigram) and 2 (BPE)",
                        kModelFile, model->model_type));
  }
  if (model->has_charsmap) {
    return absl::InvalidArgumentError(
        absl::StrCat(kModelFile, ": normalizer_spec.precompiled_charsmap is not supported: ",
                     "supported is the normalization \"identity\""));
  }
  nlohmann::json document = nlohmann::json::object();
  if (!files.tokenizer_config.empty()) {
    absl::StatusOr<nlohmann::json> parsed = ParseJson(files.tokenizer_config);
    if (!parsed.ok()) return OfFile(kConfigFile, parsed.status());
    document = *std::move(parsed);
  }
  const JsonNode config(document, kConfigFile);
  SentencePieceSettings settings{.unigram = model->model_type == kUnigramModel};
  STRUCTATTN_ASSIGN_OR_RETURN(settings.legacy, config["legacy"].BoolOr(true));
  STRUCTATTN_ASSIGN_OR_RETURN(settings.prefix, config["add_prefix_space"].BoolOr(true));
  absl::StatusOr<TokenizerConfig> result = SentencePieceConfig(
      {.texts = model->texts, .scores = model->scores, .types = model->types}, settings);
  if (!result.ok()) return OfFile(kModelFile, result.status());
  STRUCTATTN_RETURN_IF_ERROR(AddSpecialPieces(config, model->texts, &*result));
  return result;
}

absl::StatusOr<TokenizerConfig> ReadMainFile(const TokenizerFiles& files) {
  if (files.tokenizer_json.empty() && !files.sentencepiece.empty()) return ConvertModel(files);
  absl::StatusOr<TokenizerConfig> config = ReadTokenizerJson(files.tokenizer_json);
  return config.ok() ? config : OfFile(kJsonFile, config.status());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromFolder(const TokenizerFiles& files) {
  STRUCTATTN_ASSIGN_OR_RETURN(TokenizerConfig config, ReadMainFile(files));
  STRUCTATTN_RETURN_IF_ERROR(AddTokensOfOtherFiles(files, &config));
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = BuildTokenizer(std::move(config));
  if (tokenizer.ok()) return tokenizer;
  return OfFile(files.tokenizer_json.empty() ? kModelFile : kJsonFile, tokenizer.status());
}

}  // namespace structattn
