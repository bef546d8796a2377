// Reads tokenizer.json or tokenizer.model and the files around it. Understands none of them: see
// tokenizer/folder_loader.cc.
#include "server/model/folder_tokenizer.h"

#include <cstddef>
#include <span>
#include <string_view>
#include <utility>

#include "server/model/mapped_file.h"
#include "server/model/refusal.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

constexpr size_t kLargestBytes = size_t{1} << 27;

// A file that a folder may lack.
struct OptionalFile {
  std::string_view name;
  std::string TokenizerFiles::*text;
};
constexpr OptionalFile kOptionalFiles[] = {
    {"tokenizer_config.json", &TokenizerFiles::tokenizer_config},
    {"added_tokens.json", &TokenizerFiles::added_tokens},
    {"special_tokens_map.json", &TokenizerFiles::special_tokens_map},
};

}  // namespace

absl::StatusOr<TokenizerFiles> ReadTokenizerFiles(const std::string& directory) {
  TokenizerFiles files;
  absl::StatusOr<std::string> json = ReadSmallFile(directory + "/tokenizer.json", kLargestBytes);
  if (json.ok()) {
    files.tokenizer_json = *std::move(json);
  } else {
    if (!absl::IsNotFound(json.status())) return json.status();
    absl::StatusOr<std::string> model =
        ReadSmallFile(directory + "/tokenizer.model", kLargestBytes);
    if (absl::IsNotFound(model.status())) return json.status();
    if (!model.ok()) return model.status();
    files.sentencepiece = *std::move(model);
  }
  for (const OptionalFile& file : kOptionalFiles) {
    absl::StatusOr<std::string> text =
        ReadSmallFile(Concat(directory, "/", file.name), kLargestBytes);
    if (absl::IsNotFound(text.status())) continue;
    if (!text.ok()) return text.status();
    files.*file.text = *std::move(text);
  }
  return files;
}

void HashTokenizerFiles(const TokenizerFiles& files, Sha256* hash) {
  const auto add = [hash](std::string_view label, const std::string& text) {
    hash->Update(Concat(label, " ", text.size(), " ", text.size(), "\n"));
    hash->Update(text);
  };
  add("tokenizer", files.tokenizer_json.empty() ? files.sentencepiece : files.tokenizer_json);
  for (const OptionalFile& file : kOptionalFiles) {
    if (!(files.*file.text).empty()) add(file.name, files.*file.text);
  }
}

absl::Status CheckEmbedded(const Tokenizer& tokenizer, int64_t vocab_size) {
  if (tokenizer.plain_vocabulary_size() > vocab_size) {
    return Refuse(tokenizer.plain_vocabulary_size(), " token ids, the model embeds only ",
                  vocab_size);
  }
  for (const std::span<const int32_t> ids :
       {tokenizer.special_prefix(), tokenizer.special_suffix()}) {
    for (const int32_t id : ids) {
      if (id < vocab_size) continue;
      return Refuse("the special token id ", id, " around a prompt: the model embeds only ",
                    vocab_size);
    }
  }
  return absl::OkStatus();
}

}  // namespace structattn
