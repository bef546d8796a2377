// Small tokenizers for the tests in this folder: the committed fixtures, changed where a test needs
// it. Linked into tests only.
#ifndef STRUCTATTN_TESTS_SERVER_MODEL_TOKENIZER_TEST_TOKENIZERS_H_
#define STRUCTATTN_TESTS_SERVER_MODEL_TOKENIZER_TEST_TOKENIZERS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "server/model/tokenizer/tokenizer.h"

namespace structattn {

inline constexpr const char* kFamilies[] = {"gpt2",  "smollm2", "llama3", "qwen2",
                                            "qwen3", "llama2",  "llmjp"};

// The fixture tests/golden/tokenizers/FAMILY/tokenizer.json.
nlohmann::json FixtureJson(const std::string& family);

// Fails the process if the document is refused.
std::unique_ptr<Tokenizer> LoadTokenizer(const nlohmann::json& document);

// The message of the refusal, or "accepted".
std::string Refusal(const nlohmann::json& document);

// One segment; ids only.
std::vector<int32_t> Ids(const Tokenizer& tokenizer, const std::string& text,
                         bool parse_special = false);

// The segment of each token.
std::vector<int32_t> Segments(const Tokenizer& tokenizer, const std::vector<std::string>& texts);

// What each token stands for.
std::vector<std::string> Pieces(const Tokenizer& tokenizer, const std::string& text);

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_SERVER_MODEL_TOKENIZER_TEST_TOKENIZERS_H_
