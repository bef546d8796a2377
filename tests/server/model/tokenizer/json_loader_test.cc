// What a tokenizer.json may not be: each refusal names the JSON path and what is allowed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "server/model/tokenizer/json_reader.h"
#include "tests/server/model/tokenizer/test_tokenizers.h"

namespace structattn {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// `patch` is merged into the fixture (RFC 7396).
std::string RefusalOf(const std::string& family, const json& patch) {
  json document = FixtureJson(family);
  document.merge_patch(patch);
  return Refusal(document);
}

TEST(FromJson, RefusesWhatIsNotJson) {
  const auto message = [](const std::string& text) {
    const auto tokenizer = Tokenizer::FromJson(text);
    return tokenizer.ok() ? std::string("accepted") : std::string(tokenizer.status().message());
  };
  EXPECT_THAT(message(""), HasSubstr("malformed JSON"));
  EXPECT_THAT(message("{\"model\":"), HasSubstr("malformed JSON"));
  EXPECT_THAT(message("{\"version\":\"\xff\"}"), HasSubstr("malformed JSON"));
  EXPECT_THAT(message("[]"), HasSubstr("an object is needed"));
  EXPECT_THAT(message("{}"), HasSubstr("a decoder is needed"));
  EXPECT_THAT(message(std::string(1000000, '[')), HasSubstr("at most 64"));
  EXPECT_THAT(message("{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}"),
              HasSubstr("nested 101 deep"));
}

TEST(FromJson, RefusesUnknownComponentsByName) {
  const auto lower = json{{"normalizer", {{"type", "Lowercase"}}}};
  EXPECT_THAT(RefusalOf("qwen2", lower),
              AllOf(StartsWith("normalizer: \"Lowercase\""), HasSubstr("NFC, Prepend, Replace")));
  json nested = {
      {"normalizer",
       {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}, {{"type", "StripAccents"}}}}}}};
  EXPECT_THAT(RefusalOf("gpt2", nested), StartsWith("normalizer.normalizers[1]: \"StripAccents\""));
  EXPECT_THAT(RefusalOf("gpt2", {{"pre_tokenizer", {{"type", "Whitespace"}}}}),
              StartsWith("pre_tokenizer: \"Whitespace\""));
  EXPECT_THAT(RefusalOf("gpt2", {{"post_processor", {{"type", "BertProcessing"}}}}),
              StartsWith("post_processor: \"BertProcessing\""));
  EXPECT_THAT(RefusalOf("gpt2", {{"decoder", {{"type", "WordPiece"}}}}),
              StartsWith("decoder: \"WordPiece\""));
  EXPECT_THAT(RefusalOf("gpt2", {{"decoder", nullptr}}), HasSubstr("a decoder is needed"));
  EXPECT_THAT(RefusalOf("gpt2", {{"model", {{"type", "WordPiece"}}}}),
              StartsWith("model.type: \"WordPiece\""));
  EXPECT_THAT(RefusalOf("gpt2", {{"model", {{"type", "Unigram"}}}}),
              StartsWith("model.type: is not supported with ByteLevel"));
  EXPECT_THAT(RefusalOf("gpt2", {{"version", "2.0"}}), StartsWith("version: \"2.0\""));
}

TEST(FromJson, IgnoresTruncationAndPadding) {
  nlohmann::json document = FixtureJson("gpt2");
  const auto plain = LoadTokenizer(document);
  document["truncation"] = {{"max_length", 2}, {"strategy", "LongestFirst"}, {"stride", 0}};
  document["padding"] = {{"strategy", {{"Fixed", 512}}}, {"pad_id", 0}, {"pad_token", "!"}};
  const auto tokenizer = LoadTokenizer(document);
  EXPECT_EQ(Ids(*tokenizer, "a longer text than two tokens"),
            Ids(*plain, "a longer text than two tokens"));
  EXPECT_THAT(tokenizer->warnings(), testing::ElementsAre(StartsWith("truncation is ignored"),
                                                          StartsWith("padding is ignored")));
}

TEST(FromJson, RefusesUnknownSettings) {
  json document = FixtureJson("qwen2");
  document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\w+";
  EXPECT_THAT(Refusal(document),
              StartsWith("pre_tokenizer.pretokenizers[0].pattern.Regex: \"\\w+\""));
  document = FixtureJson("qwen2");
  document["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Kept";
  EXPECT_THAT(Refusal(document), HasSubstr("pretokenizers[0].behavior: \"Kept\""));
  document = FixtureJson("llama2");
  document["normalizer"]["normalizers"][1]["pattern"] = {{"Regex", " +"}};
  EXPECT_THAT(Refusal(document), StartsWith("normalizer.normalizers[1].pattern"));
  document = FixtureJson("llama2");
  std::swap(document["decoder"]["decoders"][0], document["decoder"]["decoders"][2]);
  EXPECT_THAT(Refusal(document), StartsWith("decoder.decoders[1]: ByteFallback is not supported"));

  EXPECT_THAT(RefusalOf("gpt2", {{"pre_tokenizer", {{"add_prefix_space", true}}}}),
              StartsWith("pre_tokenizer.add_prefix_space"));
  EXPECT_THAT(RefusalOf("gpt2", {{"model", {{"dropout", 0.1}}}}), StartsWith("model.dropout: 0.1"));
  EXPECT_EQ(RefusalOf("gpt2", {{"model", {{"dropout", 0.0}}}}), "accepted");
  EXPECT_THAT(RefusalOf("gpt2", {{"model", {{"continuing_subword_prefix", "##"}}}}),
              StartsWith("model.continuing_subword_prefix"));
  EXPECT_THAT(RefusalOf("gpt2", {{"model", {{"end_of_word_suffix", "</w>"}}}}),
              StartsWith("model.end_of_word_suffix"));
  EXPECT_THAT(RefusalOf("gpt2", {{"model", {{"byte_fallback", true}}}}),
              StartsWith("model.byte_fallback"));
  EXPECT_THAT(RefusalOf("gpt2", {{"model", {{"unk_token", "<none>"}}}}),
              HasSubstr("model.unk_token \"<none>\""));
}

TEST(FromJson, RefusesBadVocabularies) {
  for (const json& id : {json(-1), json(1.5), json("7"), json(nullptr), json(int64_t{1} << 40),
                         json(1 << 22), json(true)}) {
    json document = FixtureJson("gpt2");
    document["model"]["vocab"]["new"] = id;
    EXPECT_THAT(Refusal(document), StartsWith("model.vocab.new: id")) << id;
  }
  json document = FixtureJson("gpt2");
  document["model"]["vocab"]["new"] = 5;
  EXPECT_THAT(Refusal(document), HasSubstr("model.vocab: id 5 is given to"));
  document = FixtureJson("gpt2");
  document["model"]["vocab"] = json::object();
  EXPECT_THAT(Refusal(document), HasSubstr("model.vocab is empty"));
  EXPECT_THAT(RefusalOf("gpt2", {{"model", {{"vocab", {1, 2}}}}}), StartsWith("model.vocab"));
  EXPECT_THAT(RefusalOf("gpt2", {{"model", nullptr}}), StartsWith("model"));
}

TEST(FromJson, RefusesBadMerges) {
  const auto with_merge = [](const json& merge) {
    json document = FixtureJson("gpt2");
    document["model"]["merges"][3] = merge;
    return Refusal(document);
  };
  EXPECT_THAT(with_merge("zz qq"), StartsWith("model.merges[3]: token \"zz\" is not in"));
  EXPECT_THAT(with_merge("a zz"), StartsWith("model.merges[3]: token \"zz\" is not in"));
  EXPECT_THAT(with_merge("z q"), StartsWith("model.merges[3]: token \"zq\" is not in"));
  for (const json& merge : {json("ab"), json("a b c"), json(5), json({"a"}), json({"a", 1}),
                            json({"a", "b", "c"}), json(nullptr)}) {
    EXPECT_THAT(with_merge(merge), StartsWith("model.merges[3]: ")) << merge;
  }
  EXPECT_THAT(RefusalOf("gpt2", {{"model", {{"merges", "a b"}}}}), StartsWith("model.merges"));
}

TEST(FromJson, RefusesBadAddedTokens) {
  const auto with = [](const std::string& field, const json& value) {
    json document = FixtureJson("qwen2");
    document["added_tokens"][2][field] = value;
    return Refusal(document);
  };
  EXPECT_THAT(with("id", -3), StartsWith("added_tokens[2].id: -3"));
  EXPECT_THAT(with("id", 1e12), StartsWith("added_tokens[2].id"));
  EXPECT_THAT(with("id", 77777), HasSubstr("gets id"));
  EXPECT_THAT(with("content", "<|im_start|>"), HasSubstr("<|im_start|>"));
  EXPECT_THAT(with("content", ""), HasSubstr("has no content"));
  EXPECT_THAT(with("content", 5), StartsWith("added_tokens[2].content"));
  EXPECT_THAT(with("special", "yes"), StartsWith("added_tokens[2].special"));
  EXPECT_THAT(RefusalOf("qwen2", {{"added_tokens", "x"}}), StartsWith("added_tokens"));
  EXPECT_THAT(RefusalOf("qwen2", {{"added_tokens", {1}}}), StartsWith("added_tokens[0]"));
}

TEST(FromJson, RefusesBadTemplates) {
  const auto with = [](const json& single) {
    json document = FixtureJson("llama2");
    document["post_processor"]["single"] = single;
    return Refusal(document);
  };
  const json a = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json b = {{"Sequence", {{"id", "B"}, {"type_id", 0}}}};
  const json bos = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const json missing = {{"SpecialToken", {{"id", "<x>"}, {"type_id", 0}}}};
  EXPECT_EQ(with(json::array({bos, a, bos})), "accepted");
  EXPECT_THAT(with(json::array({bos})), StartsWith("post_processor.single"));
  EXPECT_THAT(with(json::array({a, a})), StartsWith("post_processor.single"));
  EXPECT_THAT(with(json::array({b})), StartsWith("post_processor.single[0]"));
  EXPECT_THAT(with(json::array({missing, a})), StartsWith("post_processor.special_tokens.<x>.ids"));
  EXPECT_THAT(with("A"), StartsWith("post_processor.single"));
}

TEST(FromJson, TakesTheOldShapes) {
  json document = FixtureJson("gpt2");
  const auto expected = Ids(*LoadTokenizer(document), "Hello, it's 12 words\n");
  document["model"].erase("type");
  document["pre_tokenizer"].erase("use_regex");
  document["model"]["merges"].insert(document["model"]["merges"].begin(), "#version: 0.2");
  EXPECT_EQ(Ids(*LoadTokenizer(document), "Hello, it's 12 words\n"), expected);
  for (json& merge : document["model"]["merges"]) {
    const std::string text = merge;
    const size_t space = text.find(' ');
    if (!text.starts_with("#")) merge = {text.substr(0, space), text.substr(space + 1)};
  }
  document["model"]["merges"].erase(0);
  EXPECT_EQ(Ids(*LoadTokenizer(document), "Hello, it's 12 words\n"), expected);
}

TEST(FromJson, SurvivesBrokenFiles) {
  std::mt19937 random(5);
  for (const char* family : {"llama2", "qwen2"}) {
    const std::string text = FixtureJson(family).dump();
    for (int round = 0; round < 60; ++round) {
      std::string broken = text;
      if (round % 2 == 0) broken.resize(random() % broken.size());
      for (int i = 0; i < 3 && !broken.empty(); ++i) {
        broken[random() % broken.size()] = static_cast<char>(random() % 128);
      }
      const auto tokenizer = Tokenizer::FromJson(broken);
      if (tokenizer.ok()) Ids(**tokenizer, "some text \u00e9");
    }
  }
}

}  // namespace
}  // namespace structattn
