// The majority rule against counting byte by byte, on random runs.
#include "server/model/tokenizer/owned_text.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

namespace structattn {
namespace {

TEST(OwnedText, JoinsNeighboursOfOneOwner) {
  OwnedText text;
  text.Append("ab", 0);
  text.Append("", 5);
  text.Append("c", 0);
  text.Append("d", 1);
  ASSERT_EQ(text.runs.size(), 2u);
  EXPECT_EQ(text.runs[0].end, 3u);
}

TEST(OwnerCursor, TieGoesToTheEarlierSegment) {
  OwnedText text;
  text.Append("aa", 3);
  text.Append("bb", 1);
  EXPECT_EQ(OwnerCursor(text.runs).MajorityOwner(0, 4), 1);
}

TEST(OwnerCursor, ATokenOfNobodyGoesToWhatFollows) {
  OwnedText text;
  text.Append("___", kNoSegment);
  text.Append("b", 2);
  text.Append("__", kNoSegment);
  OwnerCursor cursor(text.runs);
  EXPECT_EQ(cursor.MajorityOwner(0, 3), 2);
  EXPECT_EQ(cursor.MajorityOwner(0, 4), 2);
  EXPECT_EQ(cursor.MajorityOwner(4, 6), 2);
}

TEST(OwnerCursor, ASymbolForASpaceCountsOneByte) {
  OwnedText text;
  text.Append("\xE2\x96\x81", 0);
  text.Append("to", 1);
  text.Append("\xE2\x96\x81\xE2\x96\x81", 2);
  text.Append("x", 3);
  EXPECT_EQ(OwnerCursor(text.runs).MajorityOwner(0, 5), 0);
  OwnerCursor cursor(text, "\xE2\x96\x81");
  EXPECT_EQ(cursor.MajorityOwner(0, 5), 1);
  EXPECT_EQ(cursor.MajorityOwner(0, 4), 0);   // A tie.
  EXPECT_EQ(cursor.MajorityOwner(3, 11), 1);  // A tie of two spaces and two letters.
  EXPECT_EQ(cursor.MajorityOwner(4, 12), 2);
  EXPECT_EQ(cursor.MajorityOwner(8, 12), 2);
}

TEST(OwnerCursor, AgreesWithCountingBytes) {
  std::mt19937 random(20261);
  for (int round = 0; round < 2000; ++round) {
    OwnedText text;
    std::vector<int32_t> owners;
    for (int run = 0; run < 8; ++run) {
      const auto size = random() % 6;
      const auto owner = static_cast<int32_t>(random() % 4);
      text.Append(std::string(size, 'x'), owner);
      owners.insert(owners.end(), size, owner);
    }
    if (owners.empty()) continue;
    OwnerCursor cursor(text.runs);
    for (int token = 0; token < 10; ++token) {
      const size_t begin = random() % owners.size();
      const size_t end = begin + 1 + random() % (owners.size() - begin);
      std::map<int32_t, int> counts;
      for (size_t i = begin; i < end; ++i) ++counts[owners[i]];
      int32_t best = counts.begin()->first;
      for (const auto& [owner, count] : counts) {
        if (count > counts[best]) best = owner;
      }
      ASSERT_EQ(cursor.MajorityOwner(begin, end), best) << "round " << round;
      ASSERT_EQ(cursor.OwnerAt(begin), owners[begin]);
      ASSERT_EQ(cursor.FirstOwner(begin, end), counts.begin()->first);
    }
  }
}

}  // namespace
}  // namespace structattn
