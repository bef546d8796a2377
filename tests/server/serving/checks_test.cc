// Names of models, and the checks of single values at their edges.
#include "server/serving/checks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "server/serving/limits.h"

namespace structattn::serving {
namespace {

TEST(IsModelName, TakesItsAlphabetAndLength) {
  EXPECT_TRUE(IsModelName("SmolLM2-135M_q4.1"));
  EXPECT_TRUE(IsModelName(std::string(64, 'a')));
  for (const std::string& name :
       {std::string(), std::string(65, 'a'), std::string("a/b"), std::string("a b"),
        std::string("\xc3\xa9"), std::string("a\0", 2), std::string("a=b")}) {
    EXPECT_FALSE(IsModelName(name)) << name;
  }
}

TEST(CheckRange, HoldsTheEdgesAndRefusesNan) {
  const Range closed = {0.0f, 1.0f};
  const Range open_below = {0.0f, 1.0f, /*low_allowed=*/false};
  EXPECT_TRUE(CheckRange("f", 0.0f, closed).ok());
  EXPECT_FALSE(CheckRange("f", 0.0f, open_below).ok());
  EXPECT_TRUE(CheckRange("f", 1.0f, open_below).ok());
  EXPECT_FALSE(CheckRange("f", std::nextafter(1.0f, 2.0f), closed).ok());
  EXPECT_FALSE(CheckRange("f", std::nextafter(0.0f, -1.0f), closed).ok());
  for (const float value : {std::nanf(""), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()}) {
    EXPECT_FALSE(CheckRange("f", value, closed).ok()) << value;
  }
}

TEST(CheckHeader, HoldsEveryLimit) {
  RequestHeader header;
  header.request_id = std::string(Limits::kMaxRequestIdBytes, 'x');
  header.cache.salt = std::string(Limits::kMaxCacheSaltBytes, 'x');
  EXPECT_TRUE(CheckHeader(header).ok());
  RequestHeader long_id = header;
  long_id.request_id += 'x';
  EXPECT_FALSE(CheckHeader(long_id).ok());
  RequestHeader long_salt = header;
  long_salt.cache.salt += 'x';
  EXPECT_FALSE(CheckHeader(long_salt).ok());
  RequestHeader negative = header;
  negative.timeout_ms = -1;
  EXPECT_FALSE(CheckHeader(negative).ok());
}

}  // namespace
}  // namespace structattn::serving
