// A server program in a process of its own, and what it says: for tests that start one.
#ifndef STRUCTATTN_TESTS_SERVER_SERVER_PROCESS_H_
#define STRUCTATTN_TESTS_SERVER_SERVER_PROCESS_H_

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace structattn {

class ServerProcess {
 public:
  ServerProcess(const std::string& binary, std::vector<std::string> arguments) {
    int out[2];
    int err[2];
    EXPECT_EQ(pipe(out), 0);
    EXPECT_EQ(pipe(err), 0);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(out[1], STDOUT_FILENO);
      dup2(err[1], STDERR_FILENO);
      for (int fd : {out[0], out[1], err[0], err[1]}) close(fd);
      std::vector<char*> argv = {const_cast<char*>(binary.c_str())};
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

// From the line that the server prints when it serves.
inline std::string AddressOf(const std::string& line) {
  const std::string prefix = "listening on ";
  EXPECT_EQ(line.substr(0, prefix.size()), prefix);
  return line.substr(prefix.size(), line.size() - prefix.size() - 1);
}

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_SERVER_SERVER_PROCESS_H_
