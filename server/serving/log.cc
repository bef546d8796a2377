// Implements log.h with spdlog's asynchronous logger.
#include "server/serving/log.h"

#include <memory>
#include <utility>

#include "spdlog/async.h"
#include "spdlog/logger.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace structattn::serving {
namespace {

constexpr size_t kQueuedLines = 8192;
constexpr char kLoggerName[] = "structattn";
constexpr char kPattern[] = R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v})";

}  // namespace

void StartLog(spdlog::level::level_enum level) {
  spdlog::init_thread_pool(kQueuedLines, 1);
  auto logger = std::make_shared<spdlog::async_logger>(
      kLoggerName, std::make_shared<spdlog::sinks::stderr_sink_mt>(), spdlog::thread_pool(),
      spdlog::async_overflow_policy::overrun_oldest);
  logger->set_level(level);
  logger->set_pattern(kPattern, spdlog::pattern_time_type::utc);
  spdlog::register_logger(std::move(logger));
}

void StopLog() { spdlog::shutdown(); }

void Log(spdlog::level::level_enum level, std::string_view event, const LogFields& fields) {
  const std::shared_ptr<spdlog::logger> logger = spdlog::get(kLoggerName);
  if (logger == nullptr || !logger->should_log(level)) return;
  logger->log(level, spdlog::string_view_t(FormatLogFields(event, fields)));
}

std::string FormatLogFields(std::string_view event, const LogFields& fields) {
  LogFields line = LogFields::object();
  line["event"] = event;
  line.update(fields);
  std::string json = line.dump(-1, ' ', false, LogFields::error_handler_t::replace);
  return json.substr(1, json.size() - 2);  // The pattern has the braces.
}

}  // namespace structattn::serving
