// The typed reading of GGUF metadata: Gguf::Read of gguf.h. The extents of the values were checked
// by Gguf::Parse; here only their kinds and ranges can be wrong.
#include <cstring>
#include <limits>
#include <type_traits>

#include "server/model/gguf.h"
#include "server/model/refusal.h"

namespace structattn {
namespace {

template <typename T>
T Decode(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

absl::Status WrongKind(std::string_view key, std::string_view needed) {
  return Refuse("metadata key ", Quoted(key), " is not ", needed);
}

// Calls use(number) with the value in its own type; false for strings and booleans.
template <typename Use>
bool WithNumber(GgufType type, std::string_view bytes, const Use& use) {
  switch (type) {
    case GgufType::kUint8:
      use(Decode<uint8_t>(bytes));
      return true;
    case GgufType::kInt8:
      use(Decode<int8_t>(bytes));
      return true;
    case GgufType::kUint16:
      use(Decode<uint16_t>(bytes));
      return true;
    case GgufType::kInt16:
      use(Decode<int16_t>(bytes));
      return true;
    case GgufType::kUint32:
      use(Decode<uint32_t>(bytes));
      return true;
    case GgufType::kInt32:
      use(Decode<int32_t>(bytes));
      return true;
    case GgufType::kUint64:
      use(Decode<uint64_t>(bytes));
      return true;
    case GgufType::kInt64:
      use(Decode<int64_t>(bytes));
      return true;
    case GgufType::kFloat32:
      use(Decode<float>(bytes));
      return true;
    case GgufType::kFloat64:
      use(Decode<double>(bytes));
      return true;
    case GgufType::kBool:
    case GgufType::kString:
    case GgufType::kArray:
      return false;
  }
  return false;
}

}  // namespace

absl::Status Gguf::Read(std::string_view key, std::optional<int64_t>& target) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  bool fits = false;
  const bool number = !value->elements && WithNumber(value->type, value->bytes, [&](auto exact) {
    if constexpr (std::is_integral_v<decltype(exact)>) {
      fits = std::in_range<int64_t>(exact);
      if (fits) target = static_cast<int64_t>(exact);
    }
  });
  return number && fits ? absl::OkStatus() : WrongKind(key, "an integer below 2^63");
}

absl::Status Gguf::Read(std::string_view key, std::optional<double>& target) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  const bool number = !value->elements && WithNumber(value->type, value->bytes, [&](auto exact) {
    target = static_cast<double>(exact);
  });
  return number ? absl::OkStatus() : WrongKind(key, "a number");
}

absl::Status Gguf::Read(std::string_view key, std::optional<bool>& target) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (value->elements || value->type != GgufType::kBool || value->bytes[0] < 0 ||
      value->bytes[0] > 1) {
    return WrongKind(key, "a boolean");
  }
  target = value->bytes[0] != 0;
  return absl::OkStatus();
}

absl::Status Gguf::Read(std::string_view key, std::optional<std::string>& target) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (value->elements || value->type != GgufType::kString) return WrongKind(key, "a string");
  target = std::string(value->bytes);
  return absl::OkStatus();
}

absl::Status Gguf::Read(std::string_view key, std::vector<std::string>& target) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->elements || value->type != GgufType::kString) {
    return WrongKind(key, "an array of strings");
  }
  target.clear();
  target.reserve(*value->elements);
  std::string_view rest = value->bytes;
  for (uint64_t i = 0; i < *value->elements; ++i) {
    const auto size = Decode<uint64_t>(rest);
    target.emplace_back(rest.substr(sizeof(size), size));
    rest.remove_prefix(sizeof(size) + size);
  }
  return absl::OkStatus();
}

absl::Status Gguf::Read(std::string_view key, std::vector<float>& target) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->elements || value->type != GgufType::kFloat32) {
    return WrongKind(key, "an array of 32-bit floats");
  }
  target.resize(*value->elements);
  if (!target.empty()) std::memcpy(target.data(), value->bytes.data(), value->bytes.size());
  return absl::OkStatus();
}

absl::Status Gguf::Read(std::string_view key, std::vector<int32_t>& target) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->elements || (value->type != GgufType::kInt32 && value->type != GgufType::kUint32)) {
    return WrongKind(key, "an array of 32-bit integers");
  }
  target.resize(*value->elements);
  if (!target.empty()) std::memcpy(target.data(), value->bytes.data(), value->bytes.size());
  return absl::OkStatus();
}

}  // namespace structattn
