// The exit codes of the command line. Scripts depend on them: a number never changes its meaning.
#ifndef STRUCTATTN_CLIENT_CLI_EXIT_CODE_H_
#define STRUCTATTN_CLIENT_CLI_EXIT_CODE_H_

#include <grpcpp/support/status.h>

namespace structattn::client {

enum class ExitCode {
  kOk = 0,
  kUsage = 2,
  kUnreachable = 3,
  kBadRequest = 4,
  kNotAuthorised = 5,
  kExhausted = 6,
  kDeadline = 7,
  kServerError = 8,
  kSomeFailed = 9,
  kInterrupted = 130,
};

ExitCode ExitCodeFor(const grpc::Status& status);

}  // namespace structattn::client

#endif  // STRUCTATTN_CLIENT_CLI_EXIT_CODE_H_
