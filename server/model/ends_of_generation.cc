// See ends_of_generation.h.
#include "server/model/ends_of_generation.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "server/model/refusal.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

constexpr size_t kMostIds = 1024;
constexpr int32_t kControlToken = 3;  // GgufVocabulary::token_types.

// The metadata name one or two of several ends; the published folder of the same model ends at
// these tokens as well.
constexpr std::string_view kEndTokens[] = {
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "</s>",
};

// `key` is where the id comes from, for the warning.
void AddEnd(std::string_view key, int64_t id, ModelConfig& config) {
  if (id < 0 || id >= config.vocab_size) {
    config.warnings.push_back(
        Concat(key, " ", id, " is ignored: the model emits the ids 0 to ", config.vocab_size - 1));
    return;
  }
  std::vector<int32_t>& ids = config.eos_token_ids;
  const auto end = static_cast<int32_t>(id);
  if (std::find(ids.begin(), ids.end(), end) == ids.end()) ids.push_back(end);
}

}  // namespace

absl::Status AddEnds(std::string_view file, const nlohmann::json& eos_token_id,
                     ModelConfig& config) {
  using Json = nlohmann::json;
  const Json list = eos_token_id.is_array() ? eos_token_id : Json::array({eos_token_id});
  if (list.size() > kMostIds) return Refuse(file, ": eos_token_id: over ", kMostIds, " ids");
  for (const Json& id : list) {
    if (!id.is_number_integer()) {
      return Refuse(file, ": eos_token_id ", Quoted(id.dump()),
                    ": an id or a list of ids is needed");
    }
    constexpr auto kLargest = std::numeric_limits<int64_t>::max();
    const bool huge = id.is_number_unsigned() && id.get<uint64_t>() > uint64_t{kLargest};
    AddEnd(Concat(file, ": eos_token_id"), huge ? kLargest : id.get<int64_t>(), config);
  }
  return absl::OkStatus();
}

absl::Status AddEnds(const Gguf& gguf, const GgufVocabulary& vocabulary, ModelConfig& config) {
  for (const std::string_view key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                     "tokenizer.ggml.eom_token_id"}) {
    std::optional<int64_t> id;
    STRUCTATTN_RETURN_IF_ERROR(gguf.Read(key, id));
    if (id) AddEnd(key, *id, config);
  }
  for (size_t id = 0; id < vocabulary.token_types.size(); ++id) {
    if (vocabulary.token_types[id] != kControlToken) continue;
    const std::string& token = vocabulary.tokens[id];
    if (std::find(std::begin(kEndTokens), std::end(kEndTokens), token) == std::end(kEndTokens)) {
      continue;
    }
    AddEnd("tokenizer.ggml.tokens", static_cast<int64_t>(id), config);
  }
  return absl::OkStatus();
}

}  // namespace structattn
