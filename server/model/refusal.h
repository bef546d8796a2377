// How a checkpoint's defect is said: status code, prefix, and untrusted text made safe to print.
// Decides nothing.
#ifndef STRUCTATTN_SERVER_MODEL_REFUSAL_H_
#define STRUCTATTN_SERVER_MODEL_REFUSAL_H_

#include <string>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace structattn {

// abseil's string view is its own type in some builds.
inline absl::string_view ForAbsl(std::string_view text) { return {text.data(), text.size()}; }
template <typename T>
const T& ForAbsl(const T& value) requires(!std::is_convertible_v<T, std::string_view>) {
  // NOLINTNEXTLINE(bugprone-return-const-ref-from-parameter): outlived by the caller's argument.
  return value;
}

// absl::StrCat that takes std::string_view everywhere.
template <typename... Parts>
std::string Concat(const Parts&... parts) {
  return absl::StrCat(ForAbsl(parts)...);
}

// A model file that cannot be served is a failed precondition, whatever the request.
template <typename... Parts>
absl::Status Refuse(const Parts&... parts) {
  return absl::FailedPreconditionError(Concat(parts...));
}

// The same status with "prefix: " in front of its message.
inline absl::Status WithPrefix(std::string_view prefix, const absl::Status& status) {
  return absl::Status(status.code(), Concat(prefix, ": ", std::string(status.message())));
}

// Text out of a file as printable ASCII.
inline std::string Escaped(std::string_view untrusted) {
  return absl::CHexEscape(ForAbsl(untrusted));
}

// The same in quotes, cut after 80 bytes.
inline std::string Quoted(std::string_view untrusted) {
  constexpr size_t kLongest = 80;
  const bool cut = untrusted.size() > kLongest;
  return Concat("'", Escaped(untrusted.substr(0, kLongest)), cut ? "...'" : "'");
}

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_REFUSAL_H_
