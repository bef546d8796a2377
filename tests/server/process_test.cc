// The program as its operator sees it: exit codes, the one line on stdout, JSON on stderr, signals.
// Starts the real binary; needs no model, since --model-root alone is enough to serve.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <string>

#include "nlohmann/json.hpp"
#include "tests/server/server_process.h"

namespace structattn {
namespace {

using ::testing::HasSubstr;

void ExpectJsonLines(const std::string& log) {
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_TRUE(nlohmann::json::accept(line)) << line;
  }
}

TEST(ServerProcess, UsageErrorsExitWith2AndOneLine) {
  ServerProcess process(STRUCTATTN_SERVER_BINARY, {"--no-such-flag"});
  EXPECT_EQ(process.ExitCode(), 2);
  EXPECT_EQ(process.rest_of_stdout(), "");
  EXPECT_THAT(process.log(), HasSubstr("--no-such-flag"));
  EXPECT_EQ(process.log().find('\n'), process.log().size() - 1);
}

TEST(ServerProcess, HelpExitsWith0) {
  ServerProcess process(STRUCTATTN_SERVER_BINARY, {"--help"});
  EXPECT_EQ(process.ExitCode(), 0);
  EXPECT_THAT(process.rest_of_stdout(), HasSubstr("--model"));
}

TEST(ServerProcess, ARefusedModelExitsWith3AndNamesTheFile) {
  ServerProcess process(STRUCTATTN_SERVER_BINARY,
                        {"--model", "m=/no/such/model.gguf", "--listen", "127.0.0.1:0"});
  EXPECT_EQ(process.ExitCode(), 3);
  EXPECT_EQ(process.rest_of_stdout(), "");
  EXPECT_THAT(process.log(), HasSubstr("/no/such/model.gguf"));
  ExpectJsonLines(process.log());
}

TEST(ServerProcess, ATakenPortExitsWith4) {
  ServerProcess first(STRUCTATTN_SERVER_BINARY, {"--model-root", "/", "--listen", "127.0.0.1:0"});
  const std::string address = AddressOf(first.ReadLine());
  ServerProcess second(STRUCTATTN_SERVER_BINARY,
                       {"--model", "m=/no/such/model.gguf", "--listen", address});
  EXPECT_EQ(second.ExitCode(), 4);  // Before any model is looked at.
  EXPECT_EQ(second.rest_of_stdout(), "");
  EXPECT_THAT(second.log(), HasSubstr(address));
  ExpectJsonLines(second.log());
  first.Signal(SIGINT);
  EXPECT_EQ(first.ExitCode(), 0);
}

TEST(ServerProcess, SigtermDrainsAndExitsWith0AfterOneLineOnStdout) {
  ServerProcess process(STRUCTATTN_SERVER_BINARY, {"--model-root", "/", "--listen", "127.0.0.1:0"});
  EXPECT_NE(AddressOf(process.ReadLine()), "127.0.0.1:0");
  process.Signal(SIGTERM);
  EXPECT_EQ(process.ExitCode(), 0);
  EXPECT_EQ(process.rest_of_stdout(), "");
  for (const char* event : {"start", "serving", "drain", "stop"}) {
    EXPECT_THAT(process.log(), HasSubstr("\"event\":\"" + std::string(event) + "\""));
  }
  ExpectJsonLines(process.log());
}

TEST(ServerProcess, ASecondSignalEndsItAtOnceWith1) {
  ServerProcess process(STRUCTATTN_SERVER_BINARY, {"--model-root", "/", "--listen", "127.0.0.1:0",
                                                   "--drain-delay-seconds", "3600"});
  process.ReadLine();
  process.Signal(SIGTERM);
  process.WaitForEvent("drain");
  process.Signal(SIGTERM);
  EXPECT_EQ(process.ExitCode(), 1);
  ExpectJsonLines(process.log());
}

}  // namespace
}  // namespace structattn
