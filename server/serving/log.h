// One JSON object per line on stderr: what happened, when, and its facts. It never carries prompt
// or output text and never blocks the caller: a full queue drops its oldest lines.
#ifndef STRUCTATTN_SERVER_SERVING_LOG_H_
#define STRUCTATTN_SERVER_SERVING_LOG_H_

#include <string>
#include <string_view>

#include "nlohmann/json.hpp"
#include "spdlog/common.h"

namespace structattn::serving {

// {{"model", name}, {"prompt_tokens", 7}}; kept in this order.
using LogFields = nlohmann::ordered_json;

// Sends the log to stderr from `level` on. Until then lines are lost. Names are spdlog's: trace,
// debug, info, warn, err, critical, off.
void StartLog(spdlog::level::level_enum level);

// Writes what is queued and stops.
void StopLog();

// {"time": ..., "level": ..., "event": `event`, fields...}.
void Log(spdlog::level::level_enum level, std::string_view event,
         const LogFields& fields = LogFields::object());

// The part of the line after the level: valid JSON whatever the strings hold.
std::string FormatLogFields(std::string_view event, const LogFields& fields);

}  // namespace structattn::serving

#endif  // STRUCTATTN_SERVER_SERVING_LOG_H_
