// See options.h. Every flag is declared in one place, DeclareFlags.
#include "server/options.h"

#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/engine/machine_limits.h"
#include "server/model/device_name.h"
#include "server/model/status_macros.h"
#include "server/serving/checks.h"

namespace structattn {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int64_t kMaxKvMemoryMb = int64_t{64} << 20;  // 64 TiB.
constexpr int64_t kMaxPromptBytes = 16 << 20;          // One message of gRPC holds no more.
constexpr int kMaxDrainSeconds = 24 * 3600;

// The flags as they are given, with their defaults.
struct Flags {
  std::vector<std::string> models;
  std::string listen = "127.0.0.1:50051";
  std::string dtype = "auto";
  std::string quantization = "stored";
  std::optional<std::string> weights;  // The old name of --quantization; refused.
  std::string device = "auto";
  bool cuda_graphs = false;
  int threads = 0;
  std::string check_path;
  std::string model_root;
  std::optional<int64_t> kv_memory_mb;
  int max_queued = engine::EngineOptions().max_queued_requests;
  int max_running = engine::EngineOptions().max_running_sequences;
  int max_step_tokens = engine::EngineOptions().max_step_tokens;
  int64_t max_prompt_bytes = serving::Limits().max_prompt_bytes;
  int drain_delay_seconds = 0;
  int drain_timeout_seconds = 30;
  std::string log_level = "info";
};

int64_t DefaultKvMemoryMb() { return engine::EngineOptions().kv_memory_bytes >> 20; }

// Empty for a name of a device, else what is wrong with it.
std::string CheckDevice(const std::string& name) {
  return std::string(ParseDevice(name).status().message());
}

void DeclareFlags(CLI::App* app, Flags* flags) {
  app->add_option("--model", flags->models,
                  "Model to serve, NAME=PATH; PATH is a Hugging Face directory or a GGUF file. "
                  "May be repeated")
      ->allow_extra_args(false);
  app->add_option("--check", flags->check_path,
                  "Say what PATH is, whether and how it loads, where it ends and what memory it "
                  "takes, and serve nothing; exit code 0 if it loads, 3 if not");
  app->add_option("--listen", flags->listen, "HOST:PORT; port 0 picks a free one")
      ->capture_default_str();
  app->add_option("--dtype", flags->dtype,
                  "Type of activations, KV and weights that are not quantized; auto: as stored")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16", "float16"}))
      ->capture_default_str();
  app->add_option(
         "--quantization", flags->quantization,
         "How matrices are kept; stored: those that a GGUF file quantizes stay packed on "
         "CPU, others are of --dtype; none: all are of --dtype; int8: all are rounded to 8 "
         "bits on load")
      ->check(CLI::IsMember({"stored", "none", "int8"}))
      ->capture_default_str();
  app->add_option("--weights", flags->weights)->group("")->expected(0, 1);  // Not in --help.
  app->add_option("--device", flags->device,
                  "Where the models run: auto, cpu, cuda or cuda:N; auto: cuda:0 when there is one")
      ->check(CheckDevice)
      ->capture_default_str();
  app->add_flag("--cuda-graphs", flags->cuda_graphs,
                "Record decoding steps as CUDA graphs; experimental: has never run on a device");
  app->add_option("--threads", flags->threads,
                  "CPU threads; 0: as many as the process may use CPUs")
      ->check(CLI::Range(0, kMaxThreads))
      ->capture_default_str();
  app->add_option("--model-root", flags->model_root,
                  "Folder below which clients may load models; without it they may load none");
  app->add_option("--kv-memory-mb", flags->kv_memory_mb,
                  absl::StrCat("MiB of KV memory for each model; without it ", DefaultKvMemoryMb(),
                               ", or less where less is there"))
      ->check(CLI::Range(int64_t{1}, kMaxKvMemoryMb));
  app->add_option("--max-queued", flags->max_queued, "Requests that may wait for each model")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app->add_option("--max-running", flags->max_running, "Sequences of each model that run at a time")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app->add_option(
         "--max-step-tokens", flags->max_step_tokens,
         "Tokens of one step of the model: first one of each generating sequence, then those "
         "of prompts. More use the machine better, fewer let short requests in sooner")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app->add_option("--max-prompt-bytes", flags->max_prompt_bytes,
                  "Bytes of text that one prompt may have")
      ->check(CLI::Range(int64_t{1}, kMaxPromptBytes))
      ->capture_default_str();
  app->add_option(
         "--drain-delay-seconds", flags->drain_delay_seconds,
         "Seconds after SIGTERM in which requests are still taken while health says NOT_SERVING")
      ->check(CLI::Range(0, kMaxDrainSeconds))
      ->capture_default_str();
  app->add_option("--drain-timeout-seconds", flags->drain_timeout_seconds,
                  "Seconds that running requests then get before they are cancelled")
      ->check(CLI::Range(0, kMaxDrainSeconds))
      ->capture_default_str();
  app->add_option("--log-level", flags->log_level, "Severity from which lines are logged")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
}

absl::StatusOr<engine::ModelSource> ParseModel(const std::string& given) {
  const size_t equals = given.find('=');
  if (equals == std::string::npos || equals + 1 == given.size()) {
    return absl::InvalidArgumentError(absl::StrCat("--model ", given, ": NAME=PATH is needed"));
  }
  engine::ModelSource source{.name = given.substr(0, equals), .path = given.substr(equals + 1)};
  if (!serving::IsModelName(source.name)) {
    return absl::InvalidArgumentError(absl::StrCat("--model ", given, ": the name \"", source.name,
                                                   "\" is not 1..64 of A-Z a-z 0-9 . _ -"));
  }
  return source;
}

absl::StatusOr<std::vector<engine::ModelSource>> ParseModels(const Flags& flags) {
  if (flags.models.empty() && flags.model_root.empty() && flags.check_path.empty()) {
    return absl::InvalidArgumentError(
        "--model NAME=PATH is needed at least once (or --model-root, to load models later)");
  }
  std::vector<engine::ModelSource> sources;
  std::set<std::string> names;
  for (const std::string& given : flags.models) {
    STRUCTATTN_ASSIGN_OR_RETURN(engine::ModelSource source, ParseModel(given));
    if (!names.insert(source.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("--model ", given, ": the name \"", source.name, "\" is given twice"));
    }
    sources.push_back(std::move(source));
  }
  return sources;
}

absl::Status ParseListen(const std::string& given, rpc::RpcServerOptions* rpc) {
  const size_t colon = given.rfind(':');
  const std::string host = given.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  const bool host_valid = bracketed || (!host.empty() && host.find_first_of(":/[]") == host.npos);
  int port = -1;
  if (colon == std::string::npos || !host_valid ||
      !absl::SimpleAtoi(given.substr(colon + 1), &port) || port < 0 || port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--listen ", given, ": HOST:PORT is needed, PORT in 0..65535, an IPv6 HOST in brackets"));
  }
  rpc->host = host;
  rpc->port = port;
  return absl::OkStatus();
}

absl::StatusOr<std::string> CheckModelRoot(const std::string& given) {
  std::error_code error;
  if (given.empty() || std::filesystem::is_directory(given, error)) return given;
  return absl::InvalidArgumentError(absl::StrCat("--model-root ", given, ": not a directory"));
}

// --weights was --quantization once, and `expanded` was `none`.
absl::Status CheckOldNames(const Flags& flags) {
  if (!flags.weights.has_value()) return absl::OkStatus();
  static const std::map<std::string, std::string> renamed = {
      {"stored", "stored"}, {"expanded", "none"}, {"none", "none"}, {"int8", "int8"}};
  const auto found = renamed.find(*flags.weights);
  return absl::InvalidArgumentError(
      absl::StrCat("--weights has become --quantization: use --quantization ",
                   found != renamed.end() ? found->second : "stored|none|int8"));
}

// CLI11 has checked the strings against their lists.
LoadOptions MakeLoadOptions(const Flags& flags) {
  static const std::map<std::string, DType> dtypes = {
      {"float32", DType::kFloat32}, {"bfloat16", DType::kBfloat16}, {"float16", DType::kFloat16}};
  static const std::map<std::string, Quantization> forms = {{"stored", Quantization::kStored},
                                                            {"none", Quantization::kNone},
                                                            {"int8", Quantization::kInt8}};
  LoadOptions load;
  load.quantization = forms.at(flags.quantization);
  const auto dtype = dtypes.find(flags.dtype);
  if (dtype != dtypes.end()) load.dtype = dtype->second;
  load.device = *ParseDevice(flags.device);
  load.cuda_graphs = flags.cuda_graphs;
  load.threads = flags.threads > 0 ? flags.threads : engine::AllowedCpus();
  return load;
}

absl::StatusOr<ServerOptions> Check(const Flags& flags) {
  ServerOptions options;
  STRUCTATTN_RETURN_IF_ERROR(CheckOldNames(flags));
  STRUCTATTN_ASSIGN_OR_RETURN(options.models, ParseModels(flags));
  STRUCTATTN_RETURN_IF_ERROR(ParseListen(flags.listen, &options.rpc));
  STRUCTATTN_ASSIGN_OR_RETURN(options.rpc.model_root, CheckModelRoot(flags.model_root));
  options.rpc.limits.max_prompt_bytes = flags.max_prompt_bytes;
  options.load = MakeLoadOptions(flags);
  options.check_path = flags.check_path;
  options.engine.kv_memory_bytes = flags.kv_memory_mb.value_or(DefaultKvMemoryMb()) << 20;
  options.engine.kv_memory_given = flags.kv_memory_mb.has_value();
  options.engine.max_queued_requests = flags.max_queued;
  options.engine.max_running_sequences = flags.max_running;
  options.engine.max_step_tokens = flags.max_step_tokens;
  options.drain_delay = absl::Seconds(flags.drain_delay_seconds);
  options.drain_timeout = absl::Seconds(flags.drain_timeout_seconds);
  options.log_level = spdlog::level::from_str(flags.log_level);
  return options;
}

ParsedOptions UsageError(std::string_view message) {
  // The message stays one line, whatever the flags hold.
  std::string line = absl::StrCat("structattn-server: ", std::string(message));
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  }
  return {.options = std::nullopt, .exit_code = kExitUsage, .message = std::move(line)};
}

}  // namespace

ParsedOptions ParseOptions(int argc, const char* const* argv) {
  CLI::App app("Serves LLaMA and Qwen models over gRPC with structured attention.",
               "structattn-server");
  app.set_version_flag("--version", std::string("structattn-server ") + STRUCTATTN_VERSION);
  Flags flags;
  DeclareFlags(&app, &flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return {.options = std::nullopt, .exit_code = kExitDrained, .message = app.help()};
  } catch (const CLI::CallForVersion&) {
    return {.options = std::nullopt, .exit_code = kExitDrained, .message = app.version()};
  } catch (const CLI::ParseError& error) {
    return UsageError(error.what());
  }
  absl::StatusOr<ServerOptions> options = Check(flags);
  if (!options.ok()) return UsageError(std::string(options.status().message()));
  return {.options = *std::move(options), .exit_code = kExitDrained, .message = ""};
}

}  // namespace structattn
