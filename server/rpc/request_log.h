// The log's line about one generate request, the same whichever RPC brought it.
// Called by GenerateStream and BatchStream when the client has its answer, or has gone.
#ifndef STRUCTATTN_SERVER_RPC_REQUEST_LOG_H_
#define STRUCTATTN_SERVER_RPC_REQUEST_LOG_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/engine/task/generate_events.h"

namespace structattn {

struct RequestRecord {
  std::string_view method;
  std::string request_id;
  std::string model;
  absl::Status outcome;
  std::optional<engine::FinishEvent> finish;  // Of a request that the engine has ended.
  bool client_gone = false;                   // The code is CANCELLED then, whatever the outcome.
};

void LogRequest(const RequestRecord& record);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_REQUEST_LOG_H_
