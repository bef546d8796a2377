// Texts made to hurt: time must grow with the size, not with its square. Sixteen times the text may
// cost at most 64 times the processor time; a quadratic step would cost 256 times.
#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "server/model/tokenizer/utf8.h"
#include "tests/server/model/tokenizer/test_tokenizers.h"

namespace structattn {
namespace {

constexpr size_t kLargeBytes = 1 << 20;
constexpr size_t kSmallBytes = kLargeBytes / 16;
constexpr double kMostGrowth = 64.0;

// Of this thread: what else the machine does must not fail the test.
double ProcessorSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double EncodeSeconds(const Tokenizer& tokenizer, std::span<const TextSegment> segments) {
  double best = 1e9;
  for (int round = 0; round < 2; ++round) {
    const double start = ProcessorSeconds();
    EXPECT_FALSE(tokenizer.Encode(segments).empty());
    best = std::min(best, ProcessorSeconds() - start);
  }
  return best;
}

double EncodeSeconds(const Tokenizer& tokenizer, const std::string& text) {
  const TextSegment segment{.text = text};
  return EncodeSeconds(tokenizer, {&segment, 1});
}

std::string Repeat(const std::string& unit, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  return text;
}

std::string RandomText(size_t bytes) {
  std::mt19937 random(17);
  std::string text;
  while (text.size() < bytes) {
    const char32_t c = static_cast<char32_t>(random() % 0x110000);
    if (c < 0xD800 || c >= 0xE000) AppendUtf8(c, &text);
  }
  return text;
}

class Hostile : public testing::TestWithParam<const char*> {};

TEST_P(Hostile, TimeIsLinear) {
  const auto tokenizer = LoadTokenizer(FixtureJson(GetParam()));
  for (const char* unit :
       {"a", " ", "\n", " \n", "\r\n", "1", "!", "'", "\u0301", "e\u0301", "\u1100", "\u4e00", "<|",
        "<|im_end|>", "<tool_call>", "\u2581", "ab", " a", "'s"}) {
    const double small = EncodeSeconds(*tokenizer, Repeat(unit, kSmallBytes));
    const double large = EncodeSeconds(*tokenizer, Repeat(unit, kLargeBytes));
    EXPECT_LT(large, kMostGrowth * small + 0.02) << testing::PrintToString(std::string(unit));
  }
  const double small = EncodeSeconds(*tokenizer, RandomText(kSmallBytes));
  const double large = EncodeSeconds(*tokenizer, RandomText(kLargeBytes));
  EXPECT_LT(large, kMostGrowth * small + 0.02) << "random text";
}

TEST_P(Hostile, ManySegmentsAreLinear) {
  const auto tokenizer = LoadTokenizer(FixtureJson(GetParam()));
  const auto seconds = [&](size_t count) {
    return EncodeSeconds(*tokenizer, std::vector<TextSegment>(count, {.text = "a<tool_call> "}));
  };
  const double small = seconds(3000);
  EXPECT_LT(seconds(48000), kMostGrowth * small + 0.02);
}

INSTANTIATE_TEST_SUITE_P(Families, Hostile, testing::ValuesIn(kFamilies));

}  // namespace
}  // namespace structattn
