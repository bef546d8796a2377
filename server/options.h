// What the operator asks for on the command line, checked once: everything after it may trust the
// result. It looks whether folders exist, opens no file and starts nothing.
#ifndef STRUCTATTN_SERVER_OPTIONS_H_
#define STRUCTATTN_SERVER_OPTIONS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/engine/engine.h"
#include "server/engine/served_model.h"
#include "server/model/model.h"
#include "server/rpc/server.h"
#include "spdlog/common.h"

namespace structattn {

struct ServerOptions {
  std::string check_path;  // --check: what is there is said, and nothing is served.
  std::vector<engine::ModelSource> models;
  rpc::RpcServerOptions rpc;
  LoadOptions load;
  engine::EngineOptions engine;
  absl::Duration drain_delay;
  absl::Duration drain_timeout;
  spdlog::level::level_enum log_level = spdlog::level::info;
};

// Exit codes of the program.
inline constexpr int kExitDrained = 0;
inline constexpr int kExitOther = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitModelRefused = 3;
inline constexpr int kExitPortTaken = 4;

struct ParsedOptions {
  std::optional<ServerOptions> options;  // Without them, `message` is printed and the program ends.
  int exit_code = kExitDrained;  // At 0 the message goes to stdout (--help), else to stderr.
  std::string message;
};

ParsedOptions ParseOptions(int argc, const char* const* argv);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_OPTIONS_H_
