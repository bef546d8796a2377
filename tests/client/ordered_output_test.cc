// The batch output: in input order whatever order results come in, whole lines only, resumable.
#include "client/cli/ordered_output.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace structattn::client {
namespace {

class OrderedOutputTest : public testing::Test {
 protected:
  OrderedOutputTest()
      : directory_(testing::TempDir() + "/ordered_output_" +
                   testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    for (int i = 0; i < 4; ++i) inputs_.push_back(R"({"id": "p)" + std::to_string(i) + "\"}");
  }

  OrderedOutput Open(bool resume) {
    return OrderedOutput({.path = path(), .resume = resume, .inputs = inputs_});
  }
  std::string path() const { return directory_ + "/out.jsonl"; }
  std::string Contents() const {
    std::ifstream file(path());
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  static Json Result(int i, const char* text) {
    return {{"id", "p" + std::to_string(i)}, {"text", text}};
  }
  static Json Failure(int i) {
    return {{"id", "p" + std::to_string(i)}, {"error", {{"code", "INTERNAL"}}}};
  }

  const std::string directory_;
  std::vector<std::string> inputs_;
};

TEST_F(OrderedOutputTest, WritesInInputOrderAsSoonAsPossible) {
  OrderedOutput output = Open(false);
  output.Put(2, Result(2, "c"));
  EXPECT_EQ(Contents(), "");
  output.Put(0, Result(0, "a"));
  EXPECT_EQ(Contents(), "{\"id\":\"p0\",\"text\":\"a\"}\n");
  output.Put(1, Failure(1));
  output.Put(3, Result(3, "d"));
  output.Close();
  EXPECT_EQ(Contents(),
            "{\"id\":\"p0\",\"text\":\"a\"}\n{\"id\":\"p1\",\"error\":{\"code\":\"INTERNAL\"}}\n"
            "{\"id\":\"p2\",\"text\":\"c\"}\n{\"id\":\"p3\",\"text\":\"d\"}\n");
  EXPECT_EQ(output.failed(), 1u);
}

TEST_F(OrderedOutputTest, ResumeKeepsSuccessesAndRedoesFailuresAndTornLines) {
  {
    OrderedOutput output = Open(false);
    output.Put(0, Result(0, "a"));
    output.Put(1, Failure(1));
    output.Put(2, Result(2, "c"));
    output.Close();
  }
  std::ofstream(path(), std::ios::app) << "{\"id\":\"p3\",\"te";  // Killed while writing.
  OrderedOutput output = Open(true);
  EXPECT_TRUE(output.IsDone(0));
  EXPECT_FALSE(output.IsDone(1));
  EXPECT_TRUE(output.IsDone(2));
  EXPECT_FALSE(output.IsDone(3));
  output.Put(3, Result(3, "d"));
  output.Put(1, Result(1, "b"));
  output.Close();
  EXPECT_EQ(Contents(),
            "{\"id\":\"p0\",\"text\":\"a\"}\n{\"id\":\"p1\",\"text\":\"b\"}\n"
            "{\"id\":\"p2\",\"text\":\"c\"}\n{\"id\":\"p3\",\"text\":\"d\"}\n");
  EXPECT_FALSE(std::filesystem::exists(path() + ".previous"));
}

TEST_F(OrderedOutputTest, ARunKilledWhileResumingLosesNothing) {
  {
    OrderedOutput output = Open(false);
    output.Put(0, Failure(0));
    output.Put(1, Result(1, "b"));
    output.Close();
  }
  Open(true);  // Dies before its first result.
  OrderedOutput output = Open(true);
  EXPECT_TRUE(output.IsDone(1));
  EXPECT_FALSE(output.IsDone(0));
}

TEST_F(OrderedOutputTest, EveryResumeKeepsWhatAnyRunBeforeHasFinished) {
  {
    OrderedOutput output = Open(false);
    output.Put(0, Failure(0));
    for (int i = 1; i < 4; ++i) output.Put(i, Result(i, "kept"));
    output.Close();
  }
  for (int attempt = 0; attempt < 3; ++attempt) {
    OrderedOutput output = Open(true);
    for (int i = 1; i < 4; ++i) EXPECT_TRUE(output.IsDone(i)) << attempt << " " << i;
    if (attempt != 1) output.Close();  // The second is killed before it can close.
  }
}

TEST_F(OrderedOutputTest, ResultsBehindAGapSurviveAnInterrupt) {
  {
    OrderedOutput output = Open(false);
    output.Put(0, Result(0, "a"));
    output.Put(2, Result(2, "c"));
    output.Close();
  }
  EXPECT_NE(Contents().find("CANCELLED"), std::string::npos);
  OrderedOutput output = Open(true);
  EXPECT_TRUE(output.IsDone(0));
  EXPECT_FALSE(output.IsDone(1));
  EXPECT_TRUE(output.IsDone(2));
  EXPECT_FALSE(output.IsDone(3));
}

TEST_F(OrderedOutputTest, AnswersThatTheServerCutOffAreFailures) {
  Json cut = Result(0, "half");
  cut["finish_reason"] = "cancelled";
  {
    OrderedOutput output = Open(false);
    output.Put(0, cut);
    EXPECT_EQ(output.failed(), 1u);
    output.Close();
  }
  EXPECT_FALSE(Open(true).IsDone(0));
}

TEST_F(OrderedOutputTest, AFullDiskIsAnError) {
  OrderedOutput output({.path = "/dev/full", .resume = false, .inputs = inputs_});
  output.Put(0, Result(0, "a"));
  EXPECT_THROW(output.Close(), CLI::FileError);
}

TEST_F(OrderedOutputTest, ResumeIgnoresResultsOfOtherPrompts) {
  std::ofstream(path()) << "{\"id\":\"other\",\"text\":\"a\"}\n";
  EXPECT_FALSE(Open(true).IsDone(0));
}

TEST_F(OrderedOutputTest, WithoutResumeTheFileStartsEmpty) {
  std::ofstream(path()) << "{\"id\":\"p0\",\"text\":\"a\"}\n";
  EXPECT_FALSE(Open(false).IsDone(0));
  EXPECT_EQ(Contents(), "");
}

}  // namespace
}  // namespace structattn::client
