// Implements library_log.h.
#include "server/rpc/library_log.h"

#include <grpc/support/log.h>

#include <string>

#include "google/protobuf/stubs/logging.h"
#include "server/serving/log.h"

namespace structattn::rpc {
namespace {

void LogGrpc(gpr_log_func_args* args) {
  const spdlog::level::level_enum level =
      args->severity == GPR_LOG_SEVERITY_ERROR ? spdlog::level::warn : spdlog::level::debug;
  serving::Log(level, "grpc", {{"message", args->message}});
}

void LogProtobuf(google::protobuf::LogLevel, const char*, int, const std::string& message) {
  serving::Log(spdlog::level::warn, "protobuf", {{"message", message}});
}

}  // namespace

LibraryLog::LibraryLog() {
  gpr_set_log_function(LogGrpc);
  google::protobuf::SetLogHandler(LogProtobuf);
}

LibraryLog::~LibraryLog() {
  gpr_set_log_function(nullptr);
  google::protobuf::SetLogHandler(nullptr);
}

}  // namespace structattn::rpc
