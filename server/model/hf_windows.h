// Sliding windows in config.json: which layers have one, as each family of transformers reads it.
#ifndef STRUCTATTN_SERVER_MODEL_HF_WINDOWS_H_
#define STRUCTATTN_SERVER_MODEL_HF_WINDOWS_H_

#include "absl/status/status.h"
#include "server/model/json_fields.h"
#include "server/model/model_config.h"

namespace structattn {

enum class WindowRule {
  kNone,        // The family knows no windows, whatever the file says.
  kEveryLayer,  // `sliding_window`, null for none, holds in every layer (Mistral).
  // It holds if `use_sliding_window` is true, in the layers that `layer_types` names or else from
  // `max_window_layers` on (Qwen).
  kSomeLayers,
  kRefused,  // A window in use is refused (Qwen's mixtures of experts).
};

// Fills in config.sliding_window and config.windowed_layers; the rest of config is validated. A
// window that no layer uses or that no context fills is none.
absl::Status ReadHfWindows(const Fields& fields, WindowRule rule, ModelConfig& config);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_HF_WINDOWS_H_
