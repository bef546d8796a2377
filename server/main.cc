// structattn-server: flags -> bind -> load models -> serve -> drain, or --check, and nothing else.
// Stdout carries one line, the address, once requests are taken; everything else is logged to
// stderr. options.h has the exit codes.
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "server/check.h"
#include "server/engine/model_registry.h"
#include "server/options.h"
#include "server/rpc/library_log.h"
#include "server/rpc/server.h"
#include "server/serving/log.h"
#include "server/stop_signal.h"

namespace structattn {
namespace {

using serving::Log;

// Logs every tenth of the work.
std::function<void(double)> LogProgress(const std::string& name) {
  return [name, next = 0.1](double share) mutable {
    if (share < next) return;
    Log(spdlog::level::info, "model_load", {{"model", name}, {"percent", int(share * 100)}});
    while (next <= share) next += 0.1;
  };
}

void LogWarnings(const engine::ServedModel& served) {
  const auto log = [&served](const std::string& warning) {
    Log(spdlog::level::warn, "model_warning", {{"model", served.name}, {"warning", warning}});
  };
  for (const std::string& warning : served.model->config.warnings) log(warning);
  for (const std::string& warning : served.model->tokenizer->warnings()) log(warning);
  const engine::MemoryPlan& memory = served.memory;
  if (!memory.kv_shrunk) return;
  Log(spdlog::level::warn, "kv_memory_shrunk",
      {{"model", served.name},
       {"kv_memory_mb", memory.kv_bytes >> 20},
       {"available_mb", memory.available_bytes >> 20}});
}

absl::StatusOr<std::unique_ptr<engine::ServedModel>> LoadLogged(const ServerOptions& options,
                                                                const engine::ModelSource& source) {
  Log(spdlog::level::info, "model_load",
      {{"model", source.name}, {"path", source.path}, {"percent", 0}});
  const absl::Time begin = absl::Now();
  LoadOptions load = options.load;
  load.progress = LogProgress(source.name);
  absl::StatusOr<std::unique_ptr<engine::ServedModel>> served =
      engine::LoadServedModel(source, load, options.engine);
  if (!served.ok()) {
    Log(spdlog::level::err, "model_refused",
        {{"model", source.name},
         {"path", source.path},
         {"error", std::string(served.status().message())}});
    return served;
  }
  const Model& model = *(*served)->model;
  LogWarnings(**served);
  Log(spdlog::level::info, "model_loaded",
      {{"model", source.name},
       {"digest", model.digest},
       {"weights_digest", model.weights_digest},
       {"architecture", model.config.architecture},
       {"parameters", model.parameters},
       {"dtype", Name(model.dtype)},
       {"weight_format", model.weight_format},
       {"kernel", model.kernel},
       {"kv_capacity_tokens", (*served)->engine->kv_capacity_tokens()},
       {"load_ms", absl::ToDoubleMilliseconds(absl::Now() - begin)}});
  return served;
}

int ReportStartFailure(const absl::Status& status) {
  Log(spdlog::level::err, "stop", {{"error", std::string(status.message())}});
  return absl::IsAlreadyExists(status) ? kExitPortTaken : kExitOther;
}

// A lost device does not come back within this process. Health reports it, what still runs ends
// with an error, and the exit code asks for a restart.
std::function<void()> StopWhenDeviceLost(StopSignal* stop, std::atomic<bool>* lost) {
  return [stop, lost] {
    Log(spdlog::level::err, "device_lost", {{"action", "drain and exit"}});
    *lost = true;
    stop->Stop();
  };
}

int Serve(ServerOptions options, StopSignal* stop) {
  std::atomic<bool> device_lost = false;
  options.engine.on_device_lost = StopWhenDeviceLost(stop, &device_lost);
  engine::ModelRegistry registry(
      [&options](const engine::ModelSource& source) { return LoadLogged(options, source); });
  absl::StatusOr<std::unique_ptr<rpc::RpcServer>> server =
      rpc::RpcServer::Start(options.rpc, &registry);
  if (!server.ok()) return ReportStartFailure(server.status());
  for (const engine::ModelSource& source : options.models) {
    const absl::Status loaded = registry.Load(source);
    if (!loaded.ok()) {
      Log(spdlog::level::err, "stop", {{"error", std::string(loaded.message())}});
      return kExitModelRefused;
    }
  }
  stop->Claim();
  (*server)->Open();
  std::printf("listening on %s\n", (*server)->address().c_str());
  std::fflush(stdout);
  Log(spdlog::level::info, "serving", {{"address", (*server)->address()}});

  stop->Wait();
  Log(spdlog::level::info, "drain",
      {{"delay_ms", absl::ToInt64Milliseconds(options.drain_delay)},
       {"timeout_ms", absl::ToInt64Milliseconds(options.drain_timeout)}});
  (*server)->AnnounceDrain();
  absl::SleepFor(options.drain_delay);
  const bool all_done = (*server)->Drain(absl::Now() + options.drain_timeout);
  Log(spdlog::level::info, "stop", {{"all_requests_done", all_done}});
  const int exit_code = device_lost ? kExitOther : kExitDrained;
  if ((*server)->changing_models()) {  // A model that is being loaded would not be used any more.
    serving::StopLog();
    std::_Exit(exit_code);
  }
  return exit_code;
}

int ServeLogged(const ServerOptions& options, StopSignal* stop) {
  const rpc::LibraryLog library_log;
  Log(spdlog::level::info, "start",
      {{"version", STRUCTATTN_VERSION},
       {"pid", getpid()},
       {"models", options.models.size()},
       {"threads", options.load.threads}});
  return Serve(options, stop);
}

int Main(int argc, const char* const* argv) {
  const ParsedOptions parsed = ParseOptions(argc, argv);
  if (!parsed.options.has_value()) {
    std::fprintf(parsed.exit_code == kExitDrained ? stdout : stderr, "%s\n",
                 parsed.message.c_str());
    return parsed.exit_code;
  }
  if (!parsed.options->check_path.empty()) return CheckModel(*parsed.options);
  // Before the first thread, so that all inherit the blocked signals.
  StopSignal* const stop = StopSignal::Install();
  serving::StartLog(parsed.options->log_level);
  const int exit_code = ServeLogged(*parsed.options, stop);
  serving::StopLog();
  return exit_code;
}

}  // namespace
}  // namespace structattn

int main(int argc, char** argv) { return structattn::Main(argc, argv); }
