// The safetensors header: what it may say, and every lie about it that is refused.
#include "server/model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/model/model_files.h"

namespace structattn {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(std::string_view header, size_t data_bytes) {
  return std::string(ParseSafetensorsHeader(header, data_bytes).status().message());
}

// A header entry.
std::string Entry(std::string_view name, std::string_view dtype, std::string_view shape,
                  std::string_view offsets) {
  std::string text = "\"";
  text.append(name).append("\":{\"dtype\":\"").append(dtype).append("\",\"shape\":[");
  return text.append(shape).append("],\"data_offsets\":[").append(offsets).append("]}");
}

std::string Object(std::initializer_list<std::string> entries) {
  std::string text = "{";
  for (const std::string& entry : entries) text.append(entry).push_back(',');
  text.back() = '}';
  return text;
}

TEST(SafetensorsTest, ReadsWhatTheWriterWrote) {
  const TempDirectory directory;
  const std::vector<FileTensor> tensors = {
      {"a", "F32", {2, 3}, TinyBytes("a", "F32", 6)},
      {"b", "BF16", {4}, TinyBytes("b", "BF16", 4)},
      {"empty", "F16", {0, 7}, ""},
  };
  const auto file = SafetensorsFile::Open(directory.Write("m", SafetensorsBytes(tensors)));
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->tensors().size(), 3u);
  for (const FileTensor& tensor : tensors) {
    const StoredTensor& stored = file->tensors().at(tensor.name);
    EXPECT_EQ(stored.dtype, tensor.dtype);
    EXPECT_EQ(stored.shape, tensor.shape);
    EXPECT_EQ(file->Bytes(stored), tensor.bytes);
  }
}

TEST(SafetensorsTest, AcceptsEveryKnownDTypeAndAScalar) {
  const std::string header =
      "{" + Entry("a", "I64", "", "0,8") + "," + Entry("b", "F8_E4M3", "3", "8,11") + "," +
      Entry("c", "BOOL", "1,1", "11,12") + "," + Entry("d", "F4", "2", "12,13") + "}  ";
  const auto tensors = ParseSafetensorsHeader(header, 13);
  EXPECT_TRUE(tensors.ok()) << tensors.status();
}

TEST(SafetensorsTest, RefusesHeadersThatLie) {
  const std::string good = Entry("a", "F32", "2", "0,8");
  struct Case {
    std::string header;
    std::string message;
    size_t data_bytes = 8;
  };
  const std::vector<Case> cases = {
      {"", "does not begin with '{'"},
      {" {}", "does not begin with '{'"},
      {"[]", "does not begin with '{'"},
      {"{", "not valid JSON"},
      {Object({good}) + " x", "not valid JSON"},
      {Object({good, good}), "'a': appears twice", 16},
      {Object({"\"__metadata__\":{}", "\"__metadata__\":{}", good}), "appears twice"},
      {Object({"\"__metadata__\":{\"a\":1}", good}), "'__metadata__': a number is out of place"},
      {"{\"a\":1}", "a number is out of place"},
      {"{\"a\":[]}", "a list is out of place"},
      {"{\"a\":{\"dtype\":{}}}", "an object is out of place"},
      {"{\"a\":{\"dtype\":\"F32\"}}", "'a': shape is missing"},
      {"{\"a\":{\"dtype\":null}}", "null is out of place"},
      {"{\"a\":{\"size\":3}}", "unknown field 'size'"},
      {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F16\"}}", "dtype appears twice"},
      {Object({Entry("a", "F31", "2", "0,8")}), "'a': unknown dtype 'F31'"},
      {Object({Entry("a", "F32", "-2", "0,8")}), "'a': a negative number"},
      {Object({Entry("a", "F32", "2.0", "0,8")}), "'a': a fraction"},
      {Object({Entry("a", "F32", "[2]", "0,8")}), "a list is out of place"},
      {Object({Entry("a", "F32", "3", "0,8")}), "'a': type and shape need 12 bytes"},
      {Object({Entry("a", "F32", "1,1,1,1,1,1,1,1,2", "0,8")}), "more than 8 numbers"},
      {Object({Entry("a", "F32", "4294967296,4294967296", "0,8")}), "shape is too large"},
      {Object({Entry("a", "F32", "9223372036854775808", "0,8")}), "is too large"},
      {Object({Entry("a", "F4", "3", "0,8")}), "does not fill whole bytes"},
      {Object({Entry("a", "F32", "2", "8,0")}), "begin at 8, after their end 0"},
      {Object({Entry("a", "F32", "2", "0")}), "data_offsets has 1 numbers, not 2"},
      {Object({Entry("a", "F32", "2", "0,8,9")}), "more than 2 numbers"},
      {Object({good}), "'a': its data ends at byte 8 of 4", 4},
      {Object({good}), "the tensors end at byte 8 of 12", 12},
      {Object({Entry("a", "F32", "2", "4,12")}), "after a gap that begins at 0", 12},
      {Object({good, Entry("b", "F32", "2", "4,12")}),
       "'b': its data begins at byte 4, inside another tensor that ends at 8", 12},
      {Object({good, Entry("b", "F32", "1", "12,16")}), "after a gap that begins at 8", 16},
      {Object({Entry("a", "F32", "2", "18446744073709551608,18446744073709551615")}),
       "type and shape need 8 bytes"},
  };
  for (const Case& broken : cases) {
    EXPECT_THAT(ErrorOf(broken.header, broken.data_bytes), HasSubstr(broken.message))
        << broken.header;
  }
}

TEST(SafetensorsTest, RefusesEndlessHeadersEarly) {
  EXPECT_THAT(ErrorOf("{\"a\":" + std::string(1 << 20, '['), 0), HasSubstr("a list is out of"));
  std::string many = "{";
  for (int i = 0; i < 140000; ++i)
    many.append(Entry(std::to_string(i), "F32", "0", "0,0")).push_back(',');
  EXPECT_THAT(ErrorOf(many, 0), HasSubstr("more than 131072 tensors"));
}

TEST(SafetensorsTest, RefusesFilesThatAreTooShort) {
  const TempDirectory directory;
  const auto error = [&directory](std::string_view contents) {
    return std::string(SafetensorsFile::Open(directory.Write("m", contents)).status().message());
  };
  EXPECT_THAT(error("1234567"), HasSubstr("/m: 7 bytes are too few"));
  EXPECT_THAT(error(BytesOf(uint64_t{100}) + "{}"), HasSubstr("header of 100 bytes in a file of"));
  EXPECT_THAT(error(BytesOf(~uint64_t{0}) + "{}"), HasSubstr("header of 18446744073709551615"));
  EXPECT_THAT(error(BytesOf(uint64_t{0}) + "{}"), HasSubstr("does not begin with"));
}

}  // namespace
}  // namespace structattn
