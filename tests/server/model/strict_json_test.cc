// Strict JSON: what is refused, and that the message says why.
#include "server/model/strict_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace structattn {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(std::string_view text) {
  return std::string(ParseJsonObject(text).status().message());
}

TEST(StrictJsonTest, ReadsAnObject) {
  const auto value = ParseJsonObject(R"({"a": [1, {"b": 2}], "b": 3})");
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ(value->at("a").at(1).at("b"), 2);
}

TEST(StrictJsonTest, RefusesWhatIsNotOneObject) {
  EXPECT_THAT(ErrorOf("[1]"), HasSubstr("an object is needed"));
  EXPECT_THAT(ErrorOf(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOf("{} {}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOf(R"({"x": nan})"), HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOf(R"({"x": 1e999})"), HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOf("{\"x\": \"\xff\"}"), HasSubstr("not valid JSON"));
}

TEST(StrictJsonTest, RefusesEqualKeysOfOneObject) {
  EXPECT_THAT(ErrorOf(R"({"a": 1, "a": 2})"), HasSubstr("key 'a' appears twice"));
  EXPECT_THAT(ErrorOf(R"({"a": {"b": 1, "b": 1}})"), HasSubstr("key 'b' appears twice"));
}

TEST(StrictJsonTest, RefusesDeepNesting) {
  const std::string open = "{\"a\":" + std::string(100000, '[');
  EXPECT_THAT(ErrorOf(open + std::string(100000, ']') + "}"), HasSubstr("nested deeper"));
}

TEST(StrictJsonTest, KeepsMessagesShort) {
  EXPECT_LT(ErrorOf("{\"" + std::string(1 << 20, 'x')).size(), 1000u);
}

TEST(StrictJsonTest, NumbersThatOnlyPythonWritesAreStrings) {
  const auto object = ParseJsonObject(R"({"a": NaN, "b": [Infinity, -Infinity], "c": "\"NaN"})");
  ASSERT_TRUE(object.ok()) << object.status();
  EXPECT_EQ(object->dump(), R"({"a":"NaN","b":["Infinity","-Infinity"],"c":"\"NaN"})");
}

}  // namespace
}  // namespace structattn
