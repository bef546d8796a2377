// The safetensors format (github.com/huggingface/safetensors, README): a 64-bit length, a flat JSON
// header, the data. See safetensors.h. The header is read event by event, so that a hostile one is
// refused where it goes wrong and never built up in memory.
#include "server/model/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/model/refusal.h"
#include "server/model/status_macros.h"
#include "server/model/strict_json.h"

namespace structattn {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kLongestHeaderBytes = 100'000'000;  // The reference implementation's limit.
constexpr size_t kMostTensors = 1 << 17;
constexpr size_t kMostMetadata = 1 << 16;
constexpr size_t kMostDimensions = 8;

struct DTypeBits {
  std::string_view name;
  int bits;
};
constexpr DTypeBits kDTypes[] = {
    {"BOOL", 8}, {"F4", 4},      {"F6_E2M3", 6},     {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8},     {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"I16", 16}, {"U16", 16},    {"F8_E5M2FNUZ", 8}, {"F16", 16},    {"BF16", 16},
    {"I32", 32}, {"U32", 32},    {"F32", 32},        {"C64", 64},    {"F64", 64},
    {"I64", 64}, {"U64", 64},
};

// Bits per element; 0 for an unknown type.
int BitsOf(std::string_view dtype) {
  for (const DTypeBits& known : kDTypes) {
    if (known.name == dtype) return known.bits;
  }
  return 0;
}

// Receives the parser's events; the names of its members are nlohmann's. Every handler returns
// whether to go on, and false leaves the reason in status().
class HeaderReader {
 public:
  absl::Status status() const { return status_; }
  StoredTensors TakeTensors() { return std::move(tensors_); }

  bool null() { return Unexpected("null"); }
  bool boolean(bool) { return Unexpected("a boolean"); }
  bool number_integer(int64_t) { return Unexpected("a negative number"); }
  bool number_float(double, const std::string&) { return Unexpected("a fraction"); }
  bool binary(nlohmann::json::binary_t&) { return Unexpected("binary data"); }

  bool number_unsigned(uint64_t value) {
    if (place_ != Place::kNumbers) return Unexpected("a number");
    const size_t most = field_ == "shape" ? kMostDimensions : 2;
    if (numbers_.size() == most) return Fail(field_, " has more than ", most, " numbers");
    numbers_.push_back(value);
    return true;
  }

  bool string(std::string& value) {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kTensor || field_ != "dtype") return Unexpected("a string");
    if (BitsOf(value) == 0) return Fail("unknown dtype ", Quoted(value));
    current_.dtype = value;
    return true;
  }

  bool start_object(size_t) {
    switch (place_) {
      case Place::kOutside:
        place_ = Place::kHeader;
        return true;
      case Place::kHeader:
        place_ = name_ == "__metadata__" ? Place::kMetadata : Place::kTensor;
        current_ = StoredTensor();
        seen_ = {};
        return true;
      default:
        return Unexpected("an object");
    }
  }

  bool key(std::string& value) {
    if (place_ == Place::kHeader) {
      name_ = value;
      if (tensors_.contains(value) || (value == "__metadata__" && metadata_ > 0)) {
        return Fail("appears twice");
      }
      if (tensors_.size() == kMostTensors) return Fail("more than ", kMostTensors, " tensors");
      return true;
    }
    if (place_ == Place::kMetadata) {
      return ++metadata_ <= kMostMetadata || Fail("more than ", kMostMetadata, " entries");
    }
    field_ = value;
    const auto* known = std::find(kFields.begin(), kFields.end(), value);
    if (known == kFields.end()) return Fail("unknown field ", Quoted(value));
    bool& seen = seen_[static_cast<size_t>(known - kFields.begin())];
    if (std::exchange(seen, true)) return Fail(field_, " appears twice");
    return true;
  }

  bool start_array(size_t) {
    if (place_ != Place::kTensor || field_ == "dtype") return Unexpected("a list");
    place_ = Place::kNumbers;
    numbers_.clear();
    return true;
  }

  bool end_array() {
    place_ = Place::kTensor;
    if (field_ == "shape") return SetShape();
    if (numbers_.size() != 2) return Fail("data_offsets has ", numbers_.size(), " numbers, not 2");
    current_.begin = numbers_[0];
    current_.end = numbers_[1];
    return true;
  }

  bool end_object() {
    if (place_ == Place::kHeader) {
      place_ = Place::kOutside;
      return true;
    }
    const bool metadata = place_ == Place::kMetadata;
    place_ = Place::kHeader;
    if (metadata) {
      ++metadata_;  // So that an empty one counts as seen too.
      return true;
    }
    for (size_t i = 0; i < kFields.size(); ++i) {
      if (!seen_[i]) return Fail(kFields[i], " is missing");
    }
    tensors_.emplace(name_, std::move(current_));
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& error) {
    if (status_.ok()) status_ = Refuse("header: ", JsonErrorMessage(error));
    return false;
  }

 private:
  enum class Place { kOutside, kHeader, kMetadata, kTensor, kNumbers };
  static constexpr std::array<std::string_view, 3> kFields = {"dtype", "shape", "data_offsets"};

  template <typename... Parts>
  bool Fail(const Parts&... parts) {
    status_ = Refuse("header: ", Quoted(name_), ": ", parts...);
    return false;
  }

  bool Unexpected(std::string_view what) {
    if (place_ == Place::kOutside) {
      status_ = Refuse("header: ", what, " given, an object is needed");
      return false;
    }
    return Fail(what, " is out of place");
  }

  bool SetShape() {
    for (const uint64_t size : numbers_) {
      if (size > uint64_t{std::numeric_limits<int64_t>::max()}) {
        return Fail("dimension ", size, " is too large");
      }
      current_.shape.push_back(static_cast<int64_t>(size));
    }
    return true;
  }

  Place place_ = Place::kOutside;
  std::string name_;
  std::string field_;
  StoredTensor current_;
  std::array<bool, 3> seen_{};
  std::vector<uint64_t> numbers_;
  size_t metadata_ = 0;
  StoredTensors tensors_;
  absl::Status status_;
};

// Whether the byte range is exactly as long as type x shape says.
absl::Status CheckSize(const StoredTensor& tensor) {
  if (tensor.begin > tensor.end) {
    return Refuse("data_offsets begin at ", tensor.begin, ", after their end ", tensor.end);
  }
  auto bits = static_cast<int64_t>(BitsOf(tensor.dtype));
  for (const int64_t size : tensor.shape) {
    if (__builtin_mul_overflow(bits, size, &bits)) return Refuse("its shape is too large");
  }
  if (bits % 8 != 0) return Refuse("its shape does not fill whole bytes");
  const uint64_t bytes = static_cast<uint64_t>(bits) / 8;
  if (bytes != tensor.end - tensor.begin) {
    return Refuse("type and shape need ", bytes, " bytes, data_offsets hold ",
                  tensor.end - tensor.begin);
  }
  return absl::OkStatus();
}

// Whether the ranges, in order, follow each other from 0 to data_bytes.
absl::Status CheckCover(const StoredTensors& tensors, size_t data_bytes) {
  std::vector<const StoredTensors::value_type*> order;
  order.reserve(tensors.size());
  for (const auto& entry : tensors) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  size_t covered = 0;
  for (const auto* entry : order) {
    const auto& [name, tensor] = *entry;
    if (tensor.end > data_bytes) {
      return Refuse(Quoted(name), ": its data ends at byte ", tensor.end, " of ", data_bytes);
    }
    if (tensor.begin != covered) {
      return Refuse(Quoted(name), ": its data begins at byte ", tensor.begin,
                    tensor.begin < covered ? ", inside another tensor that ends at "
                                           : ", after a gap that begins at ",
                    covered);
    }
    covered = tensor.end;
  }
  if (covered != data_bytes) {
    return Refuse("the tensors end at byte ", covered, " of ", data_bytes, " bytes of data");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<StoredTensors> ParseSafetensorsHeader(std::string_view json, size_t data_bytes) {
  if (json.empty() || json.front() != '{') return Refuse("header: does not begin with '{'");
  HeaderReader reader;
  const bool read = nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  STRUCTATTN_RETURN_IF_ERROR(reader.status());
  if (!read) return Refuse("header: not valid JSON");
  StoredTensors tensors = reader.TakeTensors();
  for (const auto& [name, tensor] : tensors) {
    if (absl::Status status = CheckSize(tensor); !status.ok()) {
      return WithPrefix(Quoted(name), status);
    }
  }
  STRUCTATTN_RETURN_IF_ERROR(CheckCover(tensors, data_bytes));
  return tensors;
}

std::optional<DType> PlainDType(std::string_view safetensors_dtype) {
  if (safetensors_dtype == "F32") return DType::kFloat32;
  if (safetensors_dtype == "F16") return DType::kFloat16;
  if (safetensors_dtype == "BF16") return DType::kBfloat16;
  return std::nullopt;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  STRUCTATTN_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  if (file.size() < kLengthBytes) {
    return Refuse(path, ": ", file.size(), " bytes are too few for a safetensors file");
  }
  uint64_t header_bytes;
  std::memcpy(&header_bytes, file.bytes().data(), kLengthBytes);
  if (header_bytes > kLongestHeaderBytes || header_bytes > file.size() - kLengthBytes) {
    return Refuse(path, ": header of ", header_bytes, " bytes in a file of ", file.size(),
                  " (at most ", kLongestHeaderBytes, " are allowed)");
  }
  const size_t data_begin = kLengthBytes + header_bytes;
  absl::StatusOr<StoredTensors> tensors = ParseSafetensorsHeader(
      file.bytes().substr(kLengthBytes, header_bytes), file.size() - data_begin);
  if (!tensors.ok()) return WithPrefix(path, tensors.status());
  return SafetensorsFile(std::move(file), data_begin, *std::move(tensors));
}

}  // namespace structattn
