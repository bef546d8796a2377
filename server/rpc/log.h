// One JSON object per line on stderr: what happened, when, and its facts.
// Called by server/main and server/rpc. Never carries prompt or output text; never blocks the
// caller (a full queue drops its oldest lines).
#ifndef STRUCTATTN_SERVER_RPC_LOG_H_
#define STRUCTATTN_SERVER_RPC_LOG_H_

#include <string>
#include <string_view>

#include "nlohmann/json.hpp"
#include "spdlog/common.h"

namespace structattn {

// {{"model", name}, {"prompt_tokens", 7}}; kept in this order.
using LogFields = nlohmann::ordered_json;

// Sends the log to stderr from `level` on, gRPC's and Protobuf's own messages included. Called
// once, by main; until then lines are lost. Names are spdlog's: trace, debug, info, warn, err,
// critical, off.
void StartLog(spdlog::level::level_enum level);

// Writes what is queued and stops. Called last.
void StopLog();

// {"time": ..., "level": ..., "event": `event`, fields...}.
void Log(spdlog::level::level_enum level, std::string_view event,
         const LogFields& fields = LogFields::object());

// The part of the line after the level: valid JSON whatever the strings hold.
std::string FormatLogFields(std::string_view event, const LogFields& fields);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_LOG_H_
