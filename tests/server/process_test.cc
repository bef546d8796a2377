// The program as its operator sees it: exit codes, the one line on stdout, JSON on stderr, signals.
// Starts the real binary; needs no model, since --model-root alone is enough to serve.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace structattn {
namespace {

using ::testing::HasSubstr;

class ServerProcess {
 public:
  explicit ServerProcess(std::vector<std::string> arguments) {
    int out[2];
    int err[2];
    EXPECT_EQ(pipe(out), 0);
    EXPECT_EQ(pipe(err), 0);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(out[1], STDOUT_FILENO);
      dup2(err[1], STDERR_FILENO);
      for (int fd : {out[0], out[1], err[0], err[1]}) close(fd);
      std::vector<char*> argv = {const_cast<char*>(STRUCTATTN_SERVER_BINARY)};
      for (std::string& argument : arguments) argv.push_back(argument.data());
      argv.push_back(nullptr);
      execv(argv[0], argv.data());
      std::_Exit(127);
    }
    close(out[1]);
    close(err[1]);
    stdout_ = fdopen(out[0], "r");
    stderr_ = fdopen(err[0], "r");
  }

  ~ServerProcess() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    std::fclose(stdout_);
    std::fclose(stderr_);
  }

  std::string ReadLine() { return ReadLineOf(stdout_); }
  // Up to the line with this event.
  void WaitForEvent(const std::string& event) {
    std::string line;
    do {
      line = ReadLineOf(stderr_);
      log_ += line;
    } while (!line.empty() && line.find("\"event\":\"" + event + "\"") == std::string::npos);
  }
  void Signal(int signal) { kill(pid_, signal); }

  // -1 when it did not exit by itself. Reads what is left of both streams first.
  int ExitCode() {
    for (std::string line = ReadLine(); !line.empty(); line = ReadLine()) rest_ += line;
    for (std::string line = ReadLineOf(stderr_); !line.empty(); line = ReadLineOf(stderr_)) {
      log_ += line;
    }
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  const std::string& rest_of_stdout() const { return rest_; }
  const std::string& log() const { return log_; }

 private:
  static std::string ReadLineOf(FILE* stream) {
    std::string line;
    for (int c = std::fgetc(stream); c != EOF; c = std::fgetc(stream)) {
      line.push_back(static_cast<char>(c));
      if (c == '\n') break;
    }
    return line;
  }

  pid_t pid_ = -1;
  FILE* stdout_ = nullptr;
  FILE* stderr_ = nullptr;
  std::string rest_;
  std::string log_;
};

void ExpectJsonLines(const std::string& log) {
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_TRUE(nlohmann::json::accept(line)) << line;
  }
}

std::string AddressOf(const std::string& line) {
  const std::string prefix = "listening on ";
  EXPECT_EQ(line.substr(0, prefix.size()), prefix);
  return line.substr(prefix.size(), line.size() - prefix.size() - 1);
}

TEST(ServerProcess, UsageErrorsExitWith2AndOneLine) {
  ServerProcess process({"--no-such-flag"});
  EXPECT_EQ(process.ExitCode(), 2);
  EXPECT_EQ(process.rest_of_stdout(), "");
  EXPECT_THAT(process.log(), HasSubstr("--no-such-flag"));
  EXPECT_EQ(process.log().find('\n'), process.log().size() - 1);
}

TEST(ServerProcess, HelpExitsWith0) {
  ServerProcess process({"--help"});
  EXPECT_EQ(process.ExitCode(), 0);
  EXPECT_THAT(process.rest_of_stdout(), HasSubstr("--model"));
}

TEST(ServerProcess, ARefusedModelExitsWith3AndNamesTheFile) {
  ServerProcess process({"--model", "m=/no/such/model.gguf", "--listen", "127.0.0.1:0"});
  EXPECT_EQ(process.ExitCode(), 3);
  EXPECT_EQ(process.rest_of_stdout(), "");
  EXPECT_THAT(process.log(), HasSubstr("/no/such/model.gguf"));
  ExpectJsonLines(process.log());
}

TEST(ServerProcess, ATakenPortExitsWith4) {
  ServerProcess first({"--model-root", "/", "--listen", "127.0.0.1:0"});
  const std::string address = AddressOf(first.ReadLine());
  ServerProcess second({"--model", "m=/no/such/model.gguf", "--listen", address});
  EXPECT_EQ(second.ExitCode(), 4);  // Before any model is looked at.
  EXPECT_EQ(second.rest_of_stdout(), "");
  EXPECT_THAT(second.log(), HasSubstr(address));
  ExpectJsonLines(second.log());
  first.Signal(SIGINT);
  EXPECT_EQ(first.ExitCode(), 0);
}

TEST(ServerProcess, SigtermDrainsAndExitsWith0AfterOneLineOnStdout) {
  ServerProcess process({"--model-root", "/", "--listen", "127.0.0.1:0"});
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
  ServerProcess process(
      {"--model-root", "/", "--listen", "127.0.0.1:0", "--drain-delay-seconds", "3600"});
  process.ReadLine();
  process.Signal(SIGTERM);
  process.WaitForEvent("drain");
  process.Signal(SIGTERM);
  EXPECT_EQ(process.ExitCode(), 1);
  ExpectJsonLines(process.log());
}

}  // namespace
}  // namespace structattn
