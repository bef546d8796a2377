// See hf_windows.h.
#include "server/model/hf_windows.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "server/model/refusal.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

constexpr int64_t kDefaultWindow = 4096;
constexpr int64_t kDefaultFirstLayer = 28;

// The layers that `layer_types` calls sliding; empty where the key is missing.
absl::Status ReadLayerTypes(const Fields& fields, int64_t layers, std::vector<bool>& sliding) {
  const Json* types = fields.Find("layer_types");
  if (types == nullptr) return absl::OkStatus();
  if (!types->is_array()) return Fields::WrongKind("layer_types", *types, "a list");
  for (const Json& type : *types) {
    const std::string name = type.is_string() ? type.get<std::string>() : "";
    const bool is_sliding = name == "sliding_attention";
    if (!is_sliding && name != "full_attention") {
      return Refuse("layer_types ", Quoted(type.dump()),
                    ": supported are full_attention, sliding_attention");
    }
    sliding.push_back(is_sliding);
  }
  if (static_cast<int64_t>(sliding.size()) == layers) return absl::OkStatus();
  return Refuse("layer_types has ", sliding.size(), " entries, num_hidden_layers is ", layers);
}

bool AnyIs(const std::vector<bool>& sliding, bool value) {
  return std::ranges::find(sliding, value) != sliding.end();
}

// Whether the family's switch is on.
absl::Status ReadSwitch(const Fields& fields, WindowRule rule, bool& used) {
  used = rule == WindowRule::kEveryLayer;
  if (rule == WindowRule::kNone || rule == WindowRule::kEveryLayer) return absl::OkStatus();
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("use_sliding_window", used));
  if (!used || rule == WindowRule::kSomeLayers) return absl::OkStatus();
  return Refuse("use_sliding_window true: supported is false for this architecture");
}

}  // namespace

absl::Status ReadHfWindows(const Fields& fields, WindowRule rule, ModelConfig& config) {
  std::vector<bool> sliding;
  STRUCTATTN_RETURN_IF_ERROR(ReadLayerTypes(fields, config.layers, sliding));
  bool used = false;
  STRUCTATTN_RETURN_IF_ERROR(ReadSwitch(fields, rule, used));
  // A null is no window, a missing key the default one.
  const bool has_window =
      fields.Find("sliding_window") != nullptr || !fields.Names("sliding_window");
  if (!used || !has_window) {
    if (!AnyIs(sliding, true)) return absl::OkStatus();
    return Refuse("layer_types names sliding_attention, but no sliding window is in use");
  }
  if (rule == WindowRule::kEveryLayer && AnyIs(sliding, false)) {
    return Refuse(
        "layer_types names full_attention: the sliding window of this architecture is "
        "in every layer");
  }
  int64_t window = kDefaultWindow;
  int64_t first_layer = rule == WindowRule::kEveryLayer ? 0 : kDefaultFirstLayer;
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("sliding_window", window));
  if (rule == WindowRule::kSomeLayers) {
    STRUCTATTN_RETURN_IF_ERROR(fields.Read("max_window_layers", first_layer));
  }
  if (sliding.empty()) {
    for (int64_t layer = 0; layer < config.layers; ++layer) sliding.push_back(layer >= first_layer);
  }
  if (!AnyIs(sliding, true)) return absl::OkStatus();
  if (window < 1) return Refuse("sliding_window ", window, ": allowed are 1 and more");
  if (window >= config.context_length) return absl::OkStatus();
  config.sliding_window = static_cast<int32_t>(window);
  if (AnyIs(sliding, false)) config.windowed_layers = std::move(sliding);
  return absl::OkStatus();
}

}  // namespace structattn
