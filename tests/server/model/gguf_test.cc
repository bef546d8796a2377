// The GGUF container: typed metadata, the tensor table, and every lie that is refused.
#include "server/model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "server/model/gguf_config.h"
#include "tests/server/model/model_files.h"

namespace structattn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kStringType = 8;
constexpr uint32_t kArrayType = 9;

GgufWriter SmallFile() {
  GgufWriter writer;
  writer.Text("text", "hello");
  writer.tensors.push_back({"a", {4, 2}, 0, std::string(32, 'a')});
  writer.tensors.push_back({"b", {32}, 8, std::string(34, 'b')});
  return writer;
}

template <typename T>
std::optional<T> Get(const Gguf& gguf, std::string_view key) {
  std::optional<T> value;
  EXPECT_TRUE(gguf.Read(key, value).ok()) << key;
  return value;
}

TEST(GgufTest, ReadsTheTensorTable) {
  for (const uint32_t version : {2u, 3u}) {
    GgufWriter writer = SmallFile();
    writer.version = version;
    const std::string file = writer.Bytes();
    const auto gguf = Gguf::Parse(file);
    ASSERT_TRUE(gguf.ok()) << gguf.status();
    const GgufTensor* a = gguf->FindTensor("a");
    ASSERT_NE(a, nullptr);
    EXPECT_THAT(a->dimensions, ElementsAre(4, 2));
    EXPECT_EQ(a->encoding->name, "F32");
    EXPECT_EQ(file.substr(a->begin, a->end - a->begin), std::string(32, 'a'));
    const GgufTensor* b = gguf->FindTensor("b");
    EXPECT_EQ(b->encoding->name, "Q8_0");
    EXPECT_EQ(file.substr(b->begin, b->end - b->begin), std::string(34, 'b'));
    EXPECT_EQ(gguf->FindTensor("c"), nullptr);
    EXPECT_EQ(a->begin, gguf->data_begin());
  }
}

TEST(GgufTest, ReadsEveryTypeOfValue) {
  GgufWriter writer;
  writer.Value("u8", 0, BytesOf(uint8_t{200}));
  writer.Value("i8", 1, BytesOf(int8_t{-3}));
  writer.Value("u16", 2, BytesOf(uint16_t{60000}));
  writer.Value("i16", 3, BytesOf(int16_t{-300}));
  writer.Value("u32", 4, BytesOf(uint32_t{4000000000}));
  writer.Value("i32", 5, BytesOf(int32_t{-70000}));
  writer.Value("f32", 6, BytesOf(1.5f));
  writer.Value("bool", 7, BytesOf(true));
  writer.Value("u64", 10, BytesOf(~uint64_t{0}));
  writer.Value("i64", 11, BytesOf(int64_t{-5}));
  writer.Value("f64", 12, BytesOf(2.5));
  writer.Text("string", "text");
  writer.Strings("strings", {"a", "", "bc"});
  writer.Int32s("ints", {1, -2});
  const std::string file = writer.Bytes();
  const auto gguf = Gguf::Parse(file);
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  EXPECT_EQ(Get<int64_t>(*gguf, "u8"), 200);
  EXPECT_EQ(Get<int64_t>(*gguf, "i8"), -3);
  EXPECT_EQ(Get<int64_t>(*gguf, "u16"), 60000);
  EXPECT_EQ(Get<int64_t>(*gguf, "i16"), -300);
  EXPECT_EQ(Get<int64_t>(*gguf, "u32"), 4000000000);
  EXPECT_EQ(Get<int64_t>(*gguf, "i32"), -70000);
  EXPECT_EQ(Get<int64_t>(*gguf, "i64"), -5);
  EXPECT_EQ(Get<double>(*gguf, "f32"), 1.5);
  EXPECT_EQ(Get<double>(*gguf, "f64"), 2.5);
  EXPECT_EQ(Get<double>(*gguf, "u8"), 200.0);
  EXPECT_EQ(Get<bool>(*gguf, "bool"), true);
  EXPECT_EQ(Get<std::string>(*gguf, "string"), "text");
  EXPECT_EQ(Get<std::string>(*gguf, "missing"), std::nullopt);
  std::vector<std::string> strings;
  EXPECT_TRUE(gguf->Read("strings", strings).ok());
  EXPECT_THAT(strings, ElementsAre("a", "", "bc"));
  std::vector<int32_t> ints;
  EXPECT_TRUE(gguf->Read("ints", ints).ok());
  EXPECT_THAT(ints, ElementsAre(1, -2));

  std::optional<int64_t> integer;
  for (const char* key : {"u64", "f32", "string", "bool", "ints"}) {
    EXPECT_FALSE(gguf->Read(key, integer).ok()) << key;
  }
  std::vector<float> floats;
  EXPECT_FALSE(gguf->Read("ints", floats).ok());
  EXPECT_FALSE(gguf->Read("ints", strings).ok());
  EXPECT_FALSE(gguf->Read("strings", ints).ok());
}

std::string ArrayOf(uint32_t type, uint64_t count, std::string_view rest) {
  return BytesOf(type) + BytesOf(count) + std::string(rest);
}

TEST(GgufTest, RefusesFilesThatLie) {
  using Change = std::function<void(GgufWriter&)>;
  struct Case {
    Change change;
    std::string message;
  };
  const std::vector<Case> cases = {
      {[](auto& w) { w.magic = "GGML"; }, "not a GGUF file: it begins with 'GGML'"},
      {[](auto& w) { w.version = 1; }, "GGUF version 1: supported are 2 and 3"},
      {[](auto& w) { w.version = 0x03000000; }, "GGUF version 50331648"},
      {[](auto& w) { w.extra_tensors = int64_t{1} << 60; }, "tensors announced in a file with"},
      {[](auto& w) { w.extra_keys = int64_t{1} << 60; }, "metadata keys announced in a file with"},
      {[](auto& w) { w.Value("x", 13, "1234"); }, "'x': unknown value type 13"},
      {[](auto& w) { w.Value("x", kStringType, BytesOf(uint64_t{1} << 40)); },
       "'x': a string needs 1099511627776 bytes"},
      {[](auto& w) { w.Value("x", kStringType, BytesOf(~uint64_t{0})); }, "'x': a string needs"},
      {[](auto& w) { w.Value("x", kArrayType, ArrayOf(4, uint64_t{1} << 62, "")); },
       "'x': array of 4611686018427387904 elements"},
      {[](auto& w) { w.Value("x", kArrayType, ArrayOf(8, uint64_t{1} << 50, "")); },
       "'x': array of 1125899906842624 elements"},
      {[](auto& w) { w.Value("x", kArrayType, ArrayOf(9, 1, ArrayOf(4, 0, ""))); },
       "'x': an array of arrays"},
      {[](auto& w) { w.Value("x", kArrayType, ArrayOf(99, 1, "1234")); }, "unknown value type 99"},
      {[](auto& w) { w.Value(std::string(70000, 'k'), 4, "1234"); }, "a metadata key of 70000"},
      {[](auto& w) { w.Uint32("general.alignment", 0); }, "general.alignment 0: allowed"},
      {[](auto& w) { w.Uint32("general.alignment", 48); }, "general.alignment 48: allowed"},
      {[](auto& w) { w.Uint32("general.alignment", 1u << 31); }, "general.alignment 2147483648"},
      {[](auto& w) { w.Text("general.alignment", "32"); }, "is not an integer"},
      {[](auto& w) { w.Find("a").dimensions = {}; }, "'a': 0 dimensions: allowed are 1 to 4"},
      {[](auto& w) {
         w.Find("a").dimensions = {1, 1, 1, 1, 8};
       },
       "'a': 5 dimensions"},
      {[](auto& w) {
         w.Find("a").dimensions = {8, 0};
       },
       "'a': dimension 0 is out of range"},
      {[](auto& w) {
         w.Find("a").dimensions = {~uint64_t{0}, 2};
       },
       "is out of range"},
      {[](auto& w) {
         w.Find("a").dimensions = {uint64_t{1} << 32, uint64_t{1} << 32};
       },
       "'a': its shape is too large"},
      {[](auto& w) { w.Find("a").dimensions = {uint64_t{1} << 62}; }, "'a': its shape is too"},
      {[](auto& w) { w.Find("a").type = 11; }, "'a': encoding Q3_K: supported are F32, F16"},
      {[](auto& w) { w.Find("a").type = 99; }, "'a': encoding type 99: supported"},
      {[](auto& w) {
         w.Find("b").dimensions = {16, 2};
       },
       "'b': rows of 16 elements are not whole"},
      {[](auto& w) { w.Find("a").repeat = 2; }, "'a': tensor appears twice"},
      {[](auto& w) { w.Find("b").offset_shift = 8; }, "'b': offset 40 is not a multiple of 32"},
      {[](auto& w) { w.Find("b").offset_shift = 3200; }, "'b': its data end at byte 3266"},
      {[](auto& w) { w.Find("b").offset_shift = -64; }, "'b': offset 18446744073709551584"},
      {[](auto& w) { w.Find("b").offset_shift = -32; }, "its data overlap those of"},
  };
  for (const Case& broken : cases) {
    GgufWriter writer = SmallFile();
    broken.change(writer);
    const std::string file = writer.Bytes();
    EXPECT_THAT(std::string(Gguf::Parse(file).status().message()), HasSubstr(broken.message));
  }
}

TEST(GgufTest, RefusesEveryTruncation) {
  const std::string file = SmallFile().Bytes();
  const size_t needed = file.size() - (32 - 34 % 32);  // The last tensor's padding is not needed.
  for (size_t size = 0; size < needed; ++size) {
    EXPECT_FALSE(Gguf::Parse(std::string_view(file).substr(0, size)).ok()) << size;
  }
  EXPECT_TRUE(Gguf::Parse(std::string_view(file).substr(0, needed)).ok());
}

TEST(GgufTest, RefusesAKeyThatAppearsTwice) {
  GgufWriter writer;
  writer.Text("a", "xx");
  writer.Text("b", "yy");
  std::string file = writer.Bytes();
  file[file.find("yy") - 8 - 4 - 1] = 'a';
  EXPECT_THAT(std::string(Gguf::Parse(file).status().message()),
              HasSubstr("metadata key 'a' appears twice"));
}

}  // namespace
}  // namespace structattn
