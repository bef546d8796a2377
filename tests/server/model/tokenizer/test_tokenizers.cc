// Loading of fixtures for the tokenizer tests. Reads only below the source directory.
#include "tests/server/model/tokenizer/test_tokenizers.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace structattn {

nlohmann::json FixtureJson(const std::string& family) {
  const std::string path =
      std::string(STRUCTATTN_SOURCE_DIR) + "/tests/golden/tokenizers/" + family + "/tokenizer.json";
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

std::unique_ptr<Tokenizer> LoadTokenizer(const nlohmann::json& document) {
  auto tokenizer = Tokenizer::FromJson(document.dump());
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "refused: %s\n", std::string(tokenizer.status().message()).c_str());
    std::abort();
  }
  return *std::move(tokenizer);
}

std::string Refusal(const nlohmann::json& document) {
  const auto tokenizer = Tokenizer::FromJson(document.dump());
  return tokenizer.ok() ? "accepted" : std::string(tokenizer.status().message());
}

std::vector<int32_t> Ids(const Tokenizer& tokenizer, const std::string& text, bool parse_special) {
  const TextSegment segment{text, parse_special};
  std::vector<int32_t> ids;
  for (const Token& token : tokenizer.Encode({&segment, 1})) ids.push_back(token.id);
  return ids;
}

std::vector<int32_t> Segments(const Tokenizer& tokenizer, const std::vector<std::string>& texts) {
  std::vector<TextSegment> segments;
  for (const std::string& text : texts) segments.push_back({.text = text});
  std::vector<int32_t> result;
  for (const Token& token : tokenizer.Encode(segments)) result.push_back(token.segment);
  return result;
}

std::vector<std::string> Pieces(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<std::string> pieces;
  for (const int32_t id : Ids(tokenizer, text)) pieces.push_back(tokenizer.TokenBytes(id));
  return pieces;
}

}  // namespace structattn
