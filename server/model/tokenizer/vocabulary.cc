// Checks and indexes the tokens of a model.
#include "server/model/tokenizer/vocabulary.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "server/model/tokenizer/tokenizer_config.h"

namespace structattn {
namespace {

// Longer ones cannot be told from an attack; the longest published ones have a few hundred bytes.
constexpr size_t kMaxTokenBytes = 1 << 16;

}  // namespace

absl::StatusOr<Vocabulary> Vocabulary::Create(const Entries& entries) {
  if (entries.empty()) return absl::InvalidArgumentError("model.vocab is empty");
  int32_t largest = 0;
  for (const auto& [text, id] : entries) {
    if (id < 0 || id >= kMaxVocabularySize) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "model.vocab[\"%s\"]: id %d: allowed are 0 to %d", text, id, kMaxVocabularySize - 1));
    }
    if (text.size() > kMaxTokenBytes) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "model.vocab: token %d has %d bytes, more than %d", id, text.size(), kMaxTokenBytes));
    }
    largest = std::max(largest, id);
  }
  Vocabulary vocabulary;
  vocabulary.tokens_.resize(static_cast<size_t>(largest) + 1);
  vocabulary.ids_.reserve(entries.size());
  std::vector<bool> taken(vocabulary.tokens_.size());
  for (const auto& [text, id] : entries) {
    const auto index = static_cast<size_t>(id);
    std::string& token = vocabulary.tokens_[index];
    if (taken[index]) {
      return absl::InvalidArgumentError(
          absl::StrFormat("model.vocab: id %d is given to \"%s\" and to \"%s\"", id, token, text));
    }
    taken[index] = true;
    token = text;
    if (!vocabulary.ids_.emplace(token, id).second) {
      return absl::InvalidArgumentError(
          absl::StrFormat("model.vocab: token \"%s\" is there twice", text));
    }
  }
  return vocabulary;
}

const std::string& Vocabulary::Text(int32_t id) const {
  static const std::string kNone;
  return id >= 0 && id < size() ? tokens_[static_cast<size_t>(id)] : kNone;
}

bool Vocabulary::Has(int32_t id) const {
  if (id < 0 || id >= size()) return false;
  const auto found = ids_.find(tokens_[static_cast<size_t>(id)]);
  return found != ids_.end() && found->second == id;
}

}  // namespace structattn
