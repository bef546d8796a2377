// TextStream: stop strings against the naive check after every token, ids that stop, and what is
// held back.
#include "server/engine/sampling/text_stream.h"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <random>

#include "tests/server/engine/fakes.h"

namespace structattn::engine {
namespace {

using fake::PieceDecoder;

TEST(StopStringFilterTest, HoldsBackWhatMayBecomeAStopString) {
  StopStringFilter filter({"stop", "top hat"});
  EXPECT_EQ(filter.Push("do not s"), "do not ");
  EXPECT_EQ(filter.Push("to"), "");
  EXPECT_EQ(filter.Push("re, s"), "store, ");
  EXPECT_EQ(filter.Push("top"), "");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(filter.Finish(), "");
}

TEST(StopStringFilterTest, FlushesTheBeginningOfAStopStringThatNeverCame) {
  StopStringFilter filter({"stop"});
  EXPECT_EQ(filter.Push("sto"), "");
  EXPECT_EQ(filter.Finish(), "sto");
}

TEST(StopStringFilterTest, CutsBeforeTheEarliestOfSeveralInOnePiece) {
  StopStringFilter filter({"bc", "abcd"});
  EXPECT_EQ(filter.Push("xabcd"), "x");
  EXPECT_TRUE(filter.stopped());
}

TEST(StopStringFilterTest, NeverCutsACharacter) {
  StopStringFilter filter({"\u00e9\u00e8"});
  EXPECT_EQ(filter.Push("caf\u00e9"), "caf");
  EXPECT_EQ(filter.Push("\u00ea"), "\u00e9\u00ea");
}

// Random texts over two letters, where overlaps and false starts abound.
TEST(StopStringFilterTest, EqualsTheNaiveCheckAfterEveryPiece) {
  for (uint32_t seed = 0; seed < 5000; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto letters = [&random](int most) {
      std::string text(random() % (most + 1), 'a');
      for (char& letter : text) letter = static_cast<char>('a' + random() % 2);
      return text;
    };
    std::vector<std::string> stops;
    for (int i = static_cast<int>(random() % 4); i >= 0; --i) stops.push_back("a" + letters(9));
    StopStringFilter filter(stops);
    std::string whole;
    std::string streamed;
    for (int piece_count = 0; piece_count < 30 && !filter.stopped(); ++piece_count) {
      const std::string piece = letters(4);
      whole += piece;
      streamed += filter.Push(piece);
      size_t cut = std::string::npos;
      for (const std::string& stop : stops) cut = std::min(cut, whole.find(stop));
      ASSERT_EQ(filter.stopped(), cut != std::string::npos) << whole;
      if (filter.stopped()) {
        ASSERT_EQ(streamed, whole.substr(0, cut)) << whole;
      } else {
        // Everything is out but the longest end that begins a stop string.
        size_t held = 0;
        for (const std::string& stop : stops) {
          for (size_t n = 1; n < stop.size() && n <= whole.size(); ++n) {
            if (whole.ends_with(stop.substr(0, n))) held = std::max(held, n);
          }
        }
        ASSERT_EQ(streamed, whole.substr(0, whole.size() - held)) << whole;
      }
    }
    if (!filter.stopped()) {
      EXPECT_EQ(streamed + filter.Finish(), whole);
    }
  }
}

TEST(StopStringFilterTest, LongRunsOfFalseStartsTakeLinearTime) {
  std::vector<std::string> stops;
  for (int i = 0; i < 64; ++i) stops.push_back(std::string(1022, 'a') + "b" + std::to_string(i));
  StopStringFilter filter(stops);
  const auto begin = std::chrono::steady_clock::now();
  size_t streamed = 0;
  for (int i = 0; i < 20000; ++i) streamed += filter.Push("aaaaa").size();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(streamed, 100000u - 1022u);
  // 6.4 million steps of the automata; a check that rescans would need some 6,000 million.
  EXPECT_LT(seconds.count(), 3.0);
}

TEST(TextStreamTest, EndOfSequenceComesBeforeStopIdsAndAddsNoText) {
  StoppingParams stopping;
  stopping.stop_token_ids = {1, 2};
  const std::vector<int32_t> eos = {2};
  const std::vector<std::string> pieces = {"x", "y", "z"};
  EXPECT_EQ(TextStream(stopping, eos, PieceDecoder(pieces)).Push(2).finish, FinishReason::kStop);
  const TextStream::Piece piece = TextStream(stopping, eos, PieceDecoder(pieces)).Push(1);
  EXPECT_EQ(piece.finish, FinishReason::kStopToken);
  EXPECT_EQ(piece.text, "");
  stopping.ignore_eos = true;
  EXPECT_EQ(TextStream(stopping, eos, PieceDecoder(pieces)).Push(2).finish,
            FinishReason::kStopToken);
  stopping.stop_token_ids.clear();
  const TextStream::Piece ignored = TextStream(stopping, eos, PieceDecoder(pieces)).Push(2);
  EXPECT_FALSE(ignored.finish.has_value());
  EXPECT_EQ(ignored.text, "z");
}

TEST(TextStreamTest, ASpecialTokenThatAStopStringNamesStops) {
  StoppingParams stopping;
  stopping.stop_strings = {"<end>", "abc"};
  stopping.stop_string_ids = {2};
  TextStream stream(stopping, {}, PieceDecoder({"x", "ab", ""}));
  EXPECT_EQ(stream.Push(0).text, "x");
  EXPECT_EQ(stream.Push(1).text, "");
  const TextStream::Piece last = stream.Push(2);
  EXPECT_EQ(last.finish, FinishReason::kStopString);
  EXPECT_EQ(last.text + stream.Finish(), "ab");
}

TEST(TextStreamTest, FinishGivesHeldTextAndTheUnfinishedCharacter) {
  StoppingParams stopping;
  stopping.stop_strings = {"abc"};
  TextStream stream(stopping, {}, PieceDecoder({"ab"}, "\ufffd"));
  EXPECT_EQ(stream.Push(0).text, "");
  EXPECT_EQ(stream.Finish(), "ab\ufffd");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(TextStreamTest, FinishAddsNothingAfterAStopString) {
  StoppingParams stopping;
  stopping.stop_strings = {"b"};
  TextStream stream(stopping, {}, PieceDecoder({"ab"}, "\ufffd"));
  const TextStream::Piece piece = stream.Push(0);
  EXPECT_EQ(piece.text, "a");
  EXPECT_EQ(piece.finish, FinishReason::kStopString);
  EXPECT_EQ(stream.Finish(), "");
}

}  // namespace
}  // namespace structattn::engine
