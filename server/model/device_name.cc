// See device_name.h.
#include "server/model/device_name.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/ops.h"
#include "server/model/refusal.h"

namespace structattn {
namespace {

constexpr std::string_view kCudaPrefix = "cuda:";
constexpr int kLargestIndex = 63;  // Far above the GPUs of any machine.

// The number of one or two digits, in its shortest form; nothing for any other text.
std::optional<int> ParseIndex(std::string_view digits) {
  const bool plain = !digits.empty() && digits.size() <= 2 &&
                     std::ranges::all_of(digits, [](char c) { return c >= '0' && c <= '9'; });
  if (!plain || (digits.size() == 2 && digits[0] == '0')) return std::nullopt;
  int index = 0;
  for (const char digit : digits) index = 10 * index + (digit - '0');
  return index <= kLargestIndex ? std::optional(index) : std::nullopt;
}

}  // namespace

std::string Name(const Device& device) {
  switch (device.kind) {
    case DeviceKind::kCpu:
      return "cpu";
    case DeviceKind::kCuda:
      return absl::StrCat("cuda:", device.index);
    case DeviceKind::kEmulated:
      return "emulated";
  }
  return "";
}

absl::StatusOr<std::optional<Device>> ParseDevice(std::string_view name) {
  if (name == "auto") return std::nullopt;
  if (name == "cpu") return Device{.kind = DeviceKind::kCpu};
  if (name == "cuda") return Device{.kind = DeviceKind::kCuda};
  if (name == "emulated" && HasOps(DeviceKind::kEmulated)) {
    return Device{.kind = DeviceKind::kEmulated};
  }
  if (name.starts_with(kCudaPrefix)) {
    const std::optional<int> index = ParseIndex(name.substr(kCudaPrefix.size()));
    if (index.has_value()) return Device{.kind = DeviceKind::kCuda, .index = *index};
  }
  return absl::InvalidArgumentError(Concat("device ", Quoted(name),
                                           ": allowed are auto, cpu, cuda and cuda:N with N from "
                                           "0 to ",
                                           kLargestIndex));
}

}  // namespace structattn
