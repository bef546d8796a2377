// The names of devices, as flags take them and replies give them: "cpu", "cuda:0". Asks no device
// whether it is there.
#ifndef STRUCTATTN_SERVER_MODEL_DEVICE_NAME_H_
#define STRUCTATTN_SERVER_MODEL_DEVICE_NAME_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/context.h"

namespace structattn {

// "cpu", "cuda:0" or "emulated".
std::string Name(const Device& device);

// The device of a name; nothing for "auto". "cuda" is "cuda:0", and "emulated" is a name only in
// programs that have that device. INVALID_ARGUMENT for any other text, with what is allowed.
absl::StatusOr<std::optional<Device>> ParseDevice(std::string_view name);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_DEVICE_NAME_H_
