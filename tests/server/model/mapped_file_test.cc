// Mapped and small files: what is read, what is refused, and that nothing blocks.
#include "server/model/mapped_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <utility>

#include "tests/server/model/model_files.h"

namespace structattn {
namespace {

using ::testing::HasSubstr;

TEST(MappedFileTest, ShowsTheBytesAndMoves) {
  const TempDirectory directory;
  auto file = MappedFile::Open(directory.Write("a", "hello"));
  ASSERT_TRUE(file.ok()) << file.status();
  MappedFile moved = *std::move(file);
  EXPECT_EQ(moved.bytes(), "hello");
  auto other = MappedFile::Open(directory.Write("b", "x"));
  ASSERT_TRUE(other.ok());
  moved = *std::move(other);
  EXPECT_EQ(moved.bytes(), "x");
}

TEST(MappedFileTest, FollowsSymbolicLinksButNotInCircles) {
  const TempDirectory directory;
  directory.Write("blob", "data");
  std::filesystem::create_symlink("blob", directory.Path("link"));
  EXPECT_EQ(MappedFile::Open(directory.Path("link"))->bytes(), "data");
  std::filesystem::create_symlink("circle", directory.Path("circle"));
  EXPECT_FALSE(MappedFile::Open(directory.Path("circle")).ok());
}

TEST(MappedFileTest, RefusesWhatIsNoFileWithoutBlocking) {
  const TempDirectory directory;
  EXPECT_TRUE(absl::IsNotFound(MappedFile::Open(directory.Path("missing")).status()));
  EXPECT_THAT(std::string(MappedFile::Open(directory.path()).status().message()),
              HasSubstr("not a regular file"));
  ASSERT_EQ(::mkfifo(directory.Path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(std::string(MappedFile::Open(directory.Path("pipe")).status().message()),
              HasSubstr("not a regular file"));
  EXPECT_THAT(std::string(MappedFile::Open(directory.Write("empty", "")).status().message()),
              HasSubstr("empty file"));
}

TEST(ReadSmallFileTest, HoldsToItsLimit) {
  const TempDirectory directory;
  const std::string path = directory.Write("a", "12345");
  EXPECT_EQ(*ReadSmallFile(path, 5), "12345");
  EXPECT_THAT(std::string(ReadSmallFile(path, 4).status().message()),
              HasSubstr("5 bytes, at most 4 are allowed"));
  EXPECT_EQ(*ReadSmallFile(directory.Write("empty", ""), 4), "");
}

}  // namespace
}  // namespace structattn
