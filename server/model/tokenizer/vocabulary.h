// The tokens of a model by id and by text. Immutable; knows nothing of how text becomes tokens.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_VOCABULARY_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_VOCABULARY_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace structattn {

class Vocabulary {
 public:
  using Entries = std::vector<std::pair<std::string, int32_t>>;  // Text, id.

  // Refuses ids that are negative, too large or given twice, and texts that are too long.
  static absl::StatusOr<Vocabulary> Create(const Entries& entries);

  // Text by id, empty where there is none.
  const std::string& Text(int32_t id) const;
  bool Has(int32_t id) const;
  // -1 for an unknown one.
  int32_t Find(std::string_view text) const {
    const auto found = ids_.find(text);
    return found == ids_.end() ? -1 : found->second;
  }
  // One more than the largest id.
  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  size_t token_count() const { return ids_.size(); }
  const std::vector<std::string>& texts() const { return tokens_; }

 private:
  std::vector<std::string> tokens_;
  absl::flat_hash_map<std::string_view, int32_t> ids_;  // Views into tokens_.
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_VOCABULARY_H_
