// See check.h. One fact a line, "NAME: VALUE".
#include "server/check.h"

#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/engine/served_model.h"
#include "server/model/device_name.h"
#include "server/model/refusal.h"

namespace structattn {
namespace {

void Say(const std::string& name, const std::string& value) {
  std::printf("%s: %s\n", name.c_str(), value.c_str());
}

std::string Mib(int64_t bytes) { return absl::StrCat(bytes >> 20, " MiB"); }

// "2 '<|im_end|>', 0 '<|endoftext|>'".
std::string Ends(const ModelConfig& config, const Tokenizer& tokenizer) {
  if (config.eos_token_ids.empty()) return "none";
  return absl::StrJoin(config.eos_token_ids, ", ", [&](std::string* out, int32_t id) {
    absl::StrAppend(out, id, " ", Quoted(tokenizer.TokenBytes(id)));
  });
}

void SayPlan(const engine::PlannedModel& planned, const ServerOptions& options) {
  const auto& [opened, memory] = planned;
  const ModelConfig& config = opened.checkpoint->config();
  const std::unique_ptr<Tokenizer> tokenizer = opened.checkpoint->TakeTokenizer();
  Say("what", opened.checkpoint->kind());
  Say("architecture", absl::StrCat(config.architecture, ", ", config.layers, " layers of ",
                                   config.heads, " heads, ", config.kv_heads, " KV heads"));
  Say("parameters", absl::StrCat(opened.checkpoint->parameters()));
  Say("vocabulary", absl::StrCat(config.vocab_size, " ids"));
  Say("context length", absl::StrCat(config.context_length, " tokens"));
  Say("ends of generation", Ends(config, *tokenizer));
  Say("digest", opened.checkpoint->digest());
  Say("device", absl::StrCat(Name(opened.device), ", ", options.load.threads, " CPU threads"));
  Say("dtype", std::string(Name(opened.dtype)));
  Say("weights", absl::StrCat(Mib(memory.weights.bytes), " as ", memory.weights.format));
  Say("KV memory",
      absl::StrCat(Mib(memory.kv_bytes), ", ", memory.kv_bytes / memory.kv_token_bytes, " tokens"));
  Say("available memory", Mib(memory.available_bytes));
  for (const std::string& warning : config.warnings) Say("warning", warning);
  for (const std::string& warning : tokenizer->warnings()) Say("warning", warning);
  if (memory.kv_shrunk) Say("warning", "KV memory is less than the default, to fit");
  Say("loads", "yes");
}

}  // namespace

int CheckModel(const ServerOptions& options) {
  Say("path", options.check_path);
  const absl::StatusOr<engine::PlannedModel> planned =
      engine::PlanServedModel(options.check_path, options.load, options.engine);
  if (planned.ok()) {
    SayPlan(*planned, options);
    return kExitDrained;
  }
  Say("loads", "no");
  Say("reason", std::string(planned.status().message()));
  return kExitModelRefused;
}

}  // namespace structattn
