// The mask's picture against the pairs themselves, cell by cell.
#include "client/cli/mask_picture.h"

#include <gtest/gtest.h>

#include <string>

namespace structattn::client {
namespace {

// Tokens "a", "b", ... of the given groups under the ANCHORED rule's rows.
v1::InspectResponse Response(const std::vector<int>& groups) {
  v1::InspectResponse response;
  for (const int group : groups) {
    v1::PromptToken* token = response.add_tokens();
    token->set_bytes(std::string(1, static_cast<char>('a' + response.tokens_size() - 1)));
    token->set_group(group);
  }
  while (response.visible_size() < 3) response.add_visible();
  for (const int seen : {0, 1, 2}) response.mutable_visible(0)->add_groups(seen);
  response.mutable_visible(1)->add_groups(1);
  for (const int seen : {1, 2}) response.mutable_visible(2)->add_groups(seen);
  return response;
}

TEST(MaskPictureTest, PlainTextShowsTheKeysGroupWhereVisible) {
  EXPECT_EQ(TerminalPicture(Response({0, 1, 1, 2, 0}), 80, false),
            "[0|a][1|bc][2|d][0|e]\n"
            "\n"
            "0....\n"
            ".1...\n"
            ".11..\n"
            ".112.\n"
            "01120\n");
}

TEST(MaskPictureTest, LongPromptsAreSampledToTheWidth) {
  const std::string picture = TerminalPicture(Response(std::vector<int>(1000, 1)), 10, false);
  const std::string mask = picture.substr(picture.find("\n\n") + 2);
  EXPECT_EQ(mask.size(), 10u * 11u);
  EXPECT_EQ(mask.substr(0, 11), "1.........\n");
  EXPECT_EQ(mask.substr(99), "1111111111\n");
}

TEST(MaskPictureTest, ColourPictureUsesHalfBlocks) {
  const std::string picture = TerminalPicture(Response({1, 1}), 80, true);
  EXPECT_NE(picture.find("\u2580"), std::string::npos);
  EXPECT_NE(picture.find("\x1b[38;5;160m"), std::string::npos);
}

TEST(MaskPictureTest, SvgHasOnePolygonPerVisiblePairOfRuns) {
  const std::string svg = SvgPicture(Response({0, 1, 1, 2, 0}));
  size_t polygons = 0;
  for (size_t at = svg.find("<polygon"); at != std::string::npos;
       at = svg.find("<polygon", at + 1)) {
    ++polygons;
  }
  // 0: itself; 1: itself; 2: 1 and itself; the last 0: all four runs.
  EXPECT_EQ(polygons, 1u + 1u + 2u + 4u);
  EXPECT_NE(svg.find("</svg>"), std::string::npos);
}

}  // namespace
}  // namespace structattn::client
