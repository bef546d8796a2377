// Tokenizer::FromFolder: added tokens of the files beside tokenizer.json. The values are those of
// transformers' AutoTokenizer on the same files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/server/model/tokenizer/test_tokenizers.h"

namespace structattn {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

json Described(const std::string& content, bool special) {
  return {{"content", content}, {"lstrip", false},      {"normalized", false},
          {"rstrip", false},    {"single_word", false}, {"special", special}};
}

// Without the tokens of the given contents.
json Without(json document, const std::vector<std::string>& contents) {
  json kept = json::array();
  for (const json& token : document["added_tokens"]) {
    if (std::find(contents.begin(), contents.end(), token["content"]) == contents.end()) {
      kept.push_back(token);
    }
  }
  document["added_tokens"] = kept;
  return document;
}

json DecoderOf(const json& document) {
  json decoder = json::object();
  for (json token : document["added_tokens"]) {
    const int id = token["id"];
    token.erase("id");
    decoder[std::to_string(id)] = token;
  }
  return decoder;
}

std::unique_ptr<Tokenizer> Load(const TokenizerFiles& files) {
  auto tokenizer = Tokenizer::FromFolder(files);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TEST(FromFolder, TakesTokensOfAddedTokensDecoder) {
  const json document = FixtureJson("qwen2");
  const auto whole = LoadTokenizer(document);
  const TokenizerFiles files{
      .tokenizer_json = Without(document, {"<|im_start|>", "<tool_call>"}).dump(),
      .tokenizer_config = json({{"added_tokens_decoder", DecoderOf(document)}}).dump(),
      .added_tokens = R"({"<never>": 7})",
      .special_tokens_map = "",
      .sentencepiece = ""};
  const auto tokenizer = Load(files);
  EXPECT_THAT(tokenizer->warnings(), IsEmpty());
  const std::string text = "x<|im_start|>y<tool_call>z<never>";
  for (const bool parse_special : {false, true}) {
    EXPECT_EQ(Ids(*tokenizer, text, parse_special), Ids(*whole, text, parse_special));
  }
  EXPECT_EQ(tokenizer->FindToken("<|im_start|>"), 2001);
  EXPECT_TRUE(tokenizer->IsSpecial(2001));
  EXPECT_FALSE(tokenizer->IsSpecial(tokenizer->FindToken("<tool_call>")));
}

TEST(FromFolder, NumbersNewTokensBehindTheOthers) {
  json decoder = DecoderOf(FixtureJson("qwen2"));
  decoder["2022"] = Described("<a1>", true);
  decoder["2023"] = Described("<a2>", false);
  decoder["2030"] = Described("<a3>", true);
  const auto tokenizer = Load({.tokenizer_json = FixtureJson("qwen2").dump(),
                               .tokenizer_config = json({{"added_tokens_decoder", decoder}}).dump(),
                               .added_tokens = "",
                               .special_tokens_map = "",
                               .sentencepiece = ""});
  EXPECT_EQ(Ids(*tokenizer, "<a1><a2><a3>", true), (std::vector<int32_t>{2022, 2023, 2024}));
  EXPECT_EQ(Ids(*tokenizer, "<a2>"), (std::vector<int32_t>{2023}));
  EXPECT_THAT(tokenizer->warnings(), ElementsAre(HasSubstr("\"<a3>\" has id 2030")));
}

TEST(FromFolder, TakesTokensOfAddedTokensJsonWhereThereIsNoDecoder) {
  const json document = FixtureJson("qwen2");
  const auto tokenizer =
      Load({.tokenizer_json = Without(document, {"<|file_sep|>"}).dump(),
            .tokenizer_config = R"({"eos_token": {"content": "<zz>"}})",
            .added_tokens = R"({"<|file_sep|>": 2021, "<yy>": 2023, "<zz>": 2022, "<xx>": 2024})",
            .special_tokens_map = R"({"additional_special_tokens": ["<yy>"]})",
            .sentencepiece = ""});
  EXPECT_EQ(Ids(*tokenizer, "<|file_sep|><xx>"), (std::vector<int32_t>{2021, 2024}));
  EXPECT_EQ(Ids(*tokenizer, "<zz><yy>", true), (std::vector<int32_t>{2022, 2023}));
  EXPECT_TRUE(tokenizer->IsSpecial(2022));
  EXPECT_TRUE(tokenizer->IsSpecial(2023));
  EXPECT_FALSE(tokenizer->IsSpecial(2024));
}

TEST(FromFolder, ATokenOfTheVocabularyKeepsItsId) {
  json document = FixtureJson("llama2");
  document["added_tokens"] = json::array();
  const auto tokenizer = Load({.tokenizer_json = document.dump(),
                               .tokenizer_config = R"({"unk_token": "<unk>"})",
                               .added_tokens = R"({"<s>": 1, "<unk>": 0, "<pad>": 32000})",
                               .special_tokens_map = "",
                               .sentencepiece = ""});
  EXPECT_EQ(tokenizer->FindToken("<s>"), 1);
  EXPECT_EQ(tokenizer->FindToken("<pad>"), static_cast<int>(document["model"]["vocab"].size()));
}

TEST(FromFolder, NamesFileAndKeyOfWhatItRefuses) {
  const auto refusal = [](std::string config, std::string added) {
    const auto tokenizer = Tokenizer::FromFolder({.tokenizer_json = FixtureJson("gpt2").dump(),
                                                  .tokenizer_config = std::move(config),
                                                  .added_tokens = std::move(added),
                                                  .special_tokens_map = "",
                                                  .sentencepiece = ""});
    return tokenizer.ok() ? "accepted" : std::string(tokenizer.status().message());
  };
  EXPECT_THAT(refusal("{", ""), HasSubstr("tokenizer_config.json: malformed JSON"));
  EXPECT_THAT(refusal(R"({"added_tokens_decoder": []})", ""),
              HasSubstr("tokenizer_config.json.added_tokens_decoder: array: an object is needed"));
  EXPECT_THAT(refusal(R"({"added_tokens_decoder": {"x": {"content": "<a>"}}})", ""),
              HasSubstr("tokenizer_config.json.added_tokens_decoder.x: an id from 0 to"));
  EXPECT_THAT(refusal("", R"({"<a>": -1})"), HasSubstr("added_tokens.json.<a>: -1: an integer"));
}

}  // namespace
}  // namespace structattn
