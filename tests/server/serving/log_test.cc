// Log lines are JSON whatever the strings hold.
#include "server/serving/log.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace structattn::serving {
namespace {

nlohmann::json Parse(const std::string& fields) {
  return nlohmann::json::parse("{" + fields + "}");
}

TEST(FormatLogFields, KeepsOrderAndTypes) {
  EXPECT_EQ(FormatLogFields("request", {{"model", "m"}, {"prompt_tokens", 7}, {"queue_ms", 0.5}}),
            R"("event":"request","model":"m","prompt_tokens":7,"queue_ms":0.5)");
  EXPECT_EQ(FormatLogFields("start", LogFields::object()), R"("event":"start")");
}

TEST(FormatLogFields, EscapesEverything) {
  std::string every_byte;
  for (int byte = 0; byte < 256; ++byte) every_byte.push_back(static_cast<char>(byte));
  const std::string fields = FormatLogFields("request", {{"request_id", every_byte}});
  EXPECT_EQ(fields.find('\n'), std::string::npos);
  const nlohmann::json parsed = Parse(fields);
  EXPECT_EQ(parsed["request_id"].get<std::string>().substr(0, 128), every_byte.substr(0, 128));
}

TEST(FormatLogFields, NeverBreaksOnNumbersThatJsonLacks) {
  EXPECT_TRUE(Parse(FormatLogFields("x", {{"queue_ms", std::nan("")}}))["queue_ms"].is_null());
}

TEST(FormatLogFields, DoesNotReadFormatSpecifiers) {
  EXPECT_EQ(Parse(FormatLogFields("x", {{"model", "{} %v {0}"}}))["model"], "{} %v {0}");
}

}  // namespace
}  // namespace structattn::serving
