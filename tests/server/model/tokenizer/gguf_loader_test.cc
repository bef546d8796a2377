// GGUF vocabularies: what is refused, and what a family's tokenizer.json decides against the file.
// oracle_test.py compares every family's GGUF with PyPI tokenizers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "server/model/tokenizer/gguf_vocabulary.h"
#include "tests/server/model/tokenizer/test_tokenizers.h"

namespace structattn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr int32_t kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6;

GgufVocabulary ByteLevel(const std::string& pre) {
  GgufVocabulary vocabulary;
  vocabulary.model = "gpt2";
  vocabulary.pre = pre;
  vocabulary.tokens = {"a", "b", "ab", "<|im_end|>", "<tool_call>", "<|fim_pad|>", "[PAD6]"};
  vocabulary.token_types = {kNormal, kNormal, kNormal, kControl, kUserDefined, kControl, kUnused};
  vocabulary.merges = {"a b"};
  return vocabulary;
}

GgufVocabulary SentencePiece() {
  GgufVocabulary vocabulary;
  vocabulary.model = "llama";
  vocabulary.tokens = {"<unk>", "<s>", "<0x41>", "\u2581", "a", "b", "ab", "\u2581a"};
  vocabulary.token_types = {kUnknown, kControl, kByte, kNormal, kNormal, kNormal, kNormal, kNormal};
  vocabulary.scores = {0, 0, 0, -1, -2, -3, -4, -5};
  vocabulary.bos_token_id = 1;
  return vocabulary;
}

std::string RefusalOf(const GgufVocabulary& vocabulary) {
  const auto tokenizer = Tokenizer::FromGguf(vocabulary);
  return tokenizer.ok() ? "accepted" : std::string(tokenizer.status().message());
}

std::unique_ptr<Tokenizer> Load(const GgufVocabulary& vocabulary) {
  auto tokenizer = Tokenizer::FromGguf(vocabulary);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TEST(FromGguf, RefusesUnknownFamiliesByName) {
  GgufVocabulary vocabulary = ByteLevel("tekken");
  EXPECT_THAT(RefusalOf(vocabulary), StartsWith("tokenizer.ggml.pre: \"tekken\" is not supported"));
  EXPECT_THAT(RefusalOf(vocabulary), testing::HasSubstr("deepseek-r1-qwen, "));
  EXPECT_THAT(RefusalOf(ByteLevel("default")), StartsWith("tokenizer.ggml.pre: \"default\""));
  vocabulary.model = "bert";
  EXPECT_THAT(RefusalOf(vocabulary), StartsWith("tokenizer.ggml.model: \"bert\""));
}

TEST(FromGguf, RefusesInconsistentVocabularies) {
  GgufVocabulary vocabulary = ByteLevel("gpt-2");
  vocabulary.token_types.pop_back();
  EXPECT_THAT(RefusalOf(vocabulary), StartsWith("tokenizer.ggml.token_type: 6 types for 7"));
  vocabulary = ByteLevel("gpt-2");
  vocabulary.token_types[0] = 9;
  EXPECT_THAT(RefusalOf(vocabulary), StartsWith("tokenizer.ggml.token_type: type 9"));
  vocabulary = ByteLevel("gpt-2");
  vocabulary.tokens[1] = "a";
  EXPECT_THAT(RefusalOf(vocabulary), HasSubstr("token \"a\" is there twice"));
  vocabulary = ByteLevel("gpt-2");
  vocabulary.tokens[1] = "\xC3";
  EXPECT_THAT(RefusalOf(vocabulary), HasSubstr("token 1 is not UTF-8"));
  vocabulary = ByteLevel("gpt-2");
  vocabulary.merges = {"ab"};
  EXPECT_THAT(RefusalOf(vocabulary), StartsWith("tokenizer.ggml.merges: merge 0"));
  vocabulary.merges = {"a a"};
  EXPECT_THAT(RefusalOf(vocabulary), HasSubstr("merges[0]: token \"aa\""));
  vocabulary = ByteLevel("gpt-2");
  vocabulary.add_bos_token = true;
  EXPECT_THAT(RefusalOf(vocabulary), StartsWith("tokenizer.ggml.bos_token_id: absent"));
  vocabulary.bos_token_id = 7;
  EXPECT_THAT(RefusalOf(vocabulary), StartsWith("tokenizer.ggml.bos_token_id: 7"));
  vocabulary = {};
  EXPECT_THAT(RefusalOf(vocabulary), StartsWith("tokenizer.ggml.tokens: 0 tokens"));

  vocabulary = SentencePiece();
  vocabulary.scores.pop_back();
  EXPECT_THAT(RefusalOf(vocabulary), StartsWith("tokenizer.ggml.scores: 7 scores for 8"));
  vocabulary = SentencePiece();
  vocabulary.scores[4] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(RefusalOf(vocabulary), StartsWith("tokenizer.ggml.scores"));
}

TEST(FromGguf, QwenDecidesWhichTokensAreSpecial) {
  const auto qwen = Load(ByteLevel("qwen2"));
  EXPECT_TRUE(qwen->IsSpecial(3));
  EXPECT_FALSE(qwen->IsSpecial(4));
  EXPECT_FALSE(qwen->IsSpecial(5));  // A control token in the file, plain in tokenizer.json.
  EXPECT_THAT(Ids(*qwen, "ab<|fim_pad|><|im_end|>"), ElementsAre(2, 5));  // The rest has no token.
  EXPECT_TRUE(Load(ByteLevel("gpt-2"))->IsSpecial(5));
}

TEST(FromGguf, UnusedTokensAreNone) {
  const auto tokenizer = Load(ByteLevel("qwen2"));
  EXPECT_EQ(tokenizer->vocabulary_size(), 6);
  EXPECT_EQ(tokenizer->FindToken("[PAD6]"), -1);
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{0, 6}), "a");
}

TEST(FromGguf, SpecialPrefixFollowsTheFileElseTheFamily) {
  EXPECT_THAT(Load(ByteLevel("qwen2"))->special_prefix(), IsEmpty());
  GgufVocabulary vocabulary = ByteLevel("llama-bpe");
  EXPECT_THAT(RefusalOf(vocabulary), StartsWith("tokenizer.ggml.bos_token_id"));
  vocabulary.bos_token_id = 3;
  EXPECT_THAT(Load(vocabulary)->special_prefix(), ElementsAre(3));
  vocabulary.add_bos_token = false;
  EXPECT_THAT(Load(vocabulary)->special_prefix(), IsEmpty());
  vocabulary.add_eos_token = true;
  vocabulary.eos_token_id = 3;
  EXPECT_THAT(Load(vocabulary)->special_suffix(), ElementsAre(3));
  EXPECT_THAT(Load(SentencePiece())->special_prefix(), ElementsAre(1));
}

TEST(FromGguf, ScoresRankTheMerges) {
  GgufVocabulary vocabulary = SentencePiece();
  EXPECT_THAT(Ids(*Load(vocabulary), "ab"), ElementsAre(3, 6));
  std::swap(vocabulary.scores[6], vocabulary.scores[7]);
  EXPECT_THAT(Ids(*Load(vocabulary), "ab"), ElementsAre(7, 5));
  vocabulary.add_space_prefix = false;
  EXPECT_THAT(Ids(*Load(vocabulary), "ab"), ElementsAre(6));
  EXPECT_THAT(Ids(*Load(vocabulary), "A"), ElementsAre(2));   // A byte token.
  EXPECT_THAT(Ids(*Load(vocabulary), "xy"), ElementsAre(0));  // Unknown, fused.
  EXPECT_EQ(Load(vocabulary)->Decode(std::vector<int32_t>{7, 2}), " aA");
}

}  // namespace
}  // namespace structattn
