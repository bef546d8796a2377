// Tokenizer::FromFolder: tokenizer.json and the added tokens of the files around it.
#include <memory>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/json_loader.h"
#include "server/model/tokenizer/other_added_tokens.h"
#include "server/model/tokenizer/tokenizer_config.h"

namespace structattn {
namespace {

absl::Status OfFile(std::string_view file, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(std::string(file), ": ", std::string(status.message())));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromFolder(const TokenizerFiles& files) {
  constexpr std::string_view kFile = "tokenizer.json";
  absl::StatusOr<TokenizerConfig> config = ReadTokenizerJson(files.tokenizer_json);
  if (!config.ok()) return OfFile(kFile, config.status());
  STRUCTATTN_RETURN_IF_ERROR(AddTokensOfOtherFiles(files, &*config));
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = BuildTokenizer(*std::move(config));
  if (!tokenizer.ok()) return OfFile(kFile, tokenizer.status());
  return tokenizer;
}

}  // namespace structattn
