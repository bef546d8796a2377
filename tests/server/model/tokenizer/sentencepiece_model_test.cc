// A tokenizer.model, whole and broken. The bytes are written by hand.
#include "server/model/tokenizer/sentencepiece_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "server/model/tokenizer/tokenizer.h"
#include "tests/server/model/tokenizer/test_tokenizers.h"

namespace structattn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A message of under 128 bytes in field `number`.
std::string Message(int number, const std::string& data) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(data.size())} + data;
}

std::string Integer(int number, int value) {
  return {static_cast<char>(number << 3), static_cast<char>(value)};
}

// A piece with the score -1 (little-endian).
std::string Piece(const std::string& text, int type) {
  const std::string score("\x15\x00\x00\x80\xBF", 5);
  return Message(1, Message(1, text) + score + Integer(3, type));
}

std::string Model(int model_type) {
  return Piece("<unk>", 2) + Piece("<s>", 3) + Piece("</s>", 3) + Piece("<mark>", 4) +
         Piece("\u2581", 1) + Piece("a", 1) + Piece("\u2581a", 1) +
         Message(2, Integer(3, model_type)) + Message(3, Message(1, "identity"));
}

std::unique_ptr<Tokenizer> Load(const std::string& model, const std::string& config) {
  TokenizerFiles files;
  files.sentencepiece = model;
  files.tokenizer_config = config;
  auto tokenizer = Tokenizer::FromFolder(files);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::string Refusal(const std::string& model, const std::string& config = "") {
  TokenizerFiles files;
  files.sentencepiece = model;
  files.tokenizer_config = config;
  const auto tokenizer = Tokenizer::FromFolder(files);
  return tokenizer.ok() ? "accepted" : std::string(tokenizer.status().message());
}

TEST(SentencePieceModel, ReadsPiecesAndSpecs) {
  const auto model = ParseSentencePieceModel(Model(2));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(model->texts,
              ElementsAre("<unk>", "<s>", "</s>", "<mark>", "\u2581", "a", "\u2581a"));
  EXPECT_THAT(model->scores, testing::Each(-1.0F));
  EXPECT_THAT(model->types, ElementsAre(2, 3, 3, 4, 1, 1, 1));
  EXPECT_EQ(model->model_type, 2);
  EXPECT_FALSE(model->has_charsmap);
}

TEST(SentencePieceModel, LegacyPutsASpaceBeforeEachPieceOfText) {
  for (const int model_type : {1, 2}) {
    const auto legacy = Load(Model(model_type), "");
    EXPECT_THAT(Ids(*legacy, "a a<mark>a"), ElementsAre(6, 6, 3, 6));
    EXPECT_THAT(legacy->special_prefix(), ElementsAre(1));
    EXPECT_THAT(legacy->special_suffix(), ElementsAre());
    const auto first = Load(Model(model_type), R"({"legacy": false})");
    EXPECT_THAT(Ids(*first, "a a<mark>a"), ElementsAre(6, 6, 3, 5));
  }
}

TEST(SentencePieceModel, FollowsTokenizerConfig) {
  const auto tokenizer = Load(Model(2), R"({"add_bos_token": false, "add_eos_token": true,
      "add_prefix_space": false, "eos_token": {"content": "<mark>"}})");
  EXPECT_THAT(Ids(*tokenizer, "a"), ElementsAre(5));
  EXPECT_THAT(tokenizer->special_prefix(), ElementsAre());
  EXPECT_THAT(tokenizer->special_suffix(), ElementsAre(3));
  EXPECT_THAT(Refusal(Model(2), R"({"bos_token": "<x>"})"),
              HasSubstr("tokenizer_config.json.bos_token: \"<x>\" is no piece"));
}

TEST(SentencePieceModel, NamesWhatItRefuses) {
  EXPECT_THAT(Refusal("no protocol buffer"), HasSubstr("tokenizer.model: is not a SentencePiece"));
  EXPECT_THAT(Refusal(Message(2, Integer(3, 2))), HasSubstr("tokenizer.model: has no pieces"));
  EXPECT_THAT(Refusal(Model(3)), HasSubstr("trainer_spec.model_type 3: supported are 1"));
  EXPECT_THAT(Refusal(Model(2) + Message(3, Message(2, "rules"))),
              HasSubstr("normalizer_spec.precompiled_charsmap is not supported"));
  EXPECT_THAT(Refusal(Piece("", 1)), HasSubstr("pieces[0]: is empty or not UTF-8"));
  EXPECT_THAT(Refusal(Piece("\xFF", 1)), HasSubstr("pieces[0]: is empty or not UTF-8"));
  EXPECT_THAT(Refusal(Piece("a", 9)), HasSubstr("pieces[0]: its type is not 1 to 6"));
}

TEST(SentencePieceModel, NoCutOfTheBytesIsReadPastItsEnd) {
  const std::string whole = Model(2);
  for (size_t size = 0; size < whole.size(); ++size) {
    (void)ParseSentencePieceModel(std::string(whole, 0, size)).ok();
  }
}

}  // namespace
}  // namespace structattn
