// Reads the GGUF container (ggml's docs/gguf.md): see gguf.h. Every count and length is compared
// with the bytes that are left before it is believed.
#include "server/model/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "server/model/refusal.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

static_assert(std::endian::native == std::endian::little, "the supported files are little-endian");

constexpr uint64_t kMostKeys = 1 << 16;
constexpr uint64_t kMostTensors = 1 << 16;
constexpr uint64_t kLongestNameBytes = 1 << 16;
constexpr uint32_t kMostDimensions = 4;
constexpr int64_t kLargestAlignment = 1 << 16;
constexpr int64_t kDefaultAlignment = 32;
// The smallest possible encodings: a key of no characters with a one-byte value; a tensor of no
// name and one dimension.
constexpr uint64_t kSmallestEntryBytes = 8 + 4 + 1;
constexpr uint64_t kSmallestTensorBytes = 8 + 4 + 8 + 4 + 8;

// Bytes of one value of a fixed-size type; 0 for strings and arrays.
size_t FixedBytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

// A place in the file that only moves forward and never past the end.
class Cursor {
 public:
  explicit Cursor(std::string_view file) : file_(file) {}

  size_t position() const { return position_; }
  size_t left() const { return file_.size() - position_; }

  absl::StatusOr<std::string_view> Take(uint64_t count, std::string_view what) {
    if (count > left()) {
      return Refuse(what, " needs ", count, " bytes, ", left(), " are left in the file");
    }
    const std::string_view bytes = file_.substr(position_, count);
    position_ += count;
    return bytes;
  }

  template <typename T>
  absl::StatusOr<T> Number(std::string_view what) {
    STRUCTATTN_ASSIGN_OR_RETURN(const std::string_view bytes, Take(sizeof(T), what));
    T value;
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }

  absl::StatusOr<std::string_view> String(std::string_view what) {
    STRUCTATTN_ASSIGN_OR_RETURN(const uint64_t size, Number<uint64_t>(what));
    return Take(size, what);
  }

  absl::StatusOr<std::string> Name(std::string_view what) {
    STRUCTATTN_ASSIGN_OR_RETURN(const std::string_view name, String(what));
    if (name.size() > kLongestNameBytes) {
      return Refuse(what, " of ", name.size(), " bytes, at most ", kLongestNameBytes,
                    " are allowed");
    }
    return std::string(name);
  }

  absl::StatusOr<GgufType> Type() {
    STRUCTATTN_ASSIGN_OR_RETURN(const uint32_t type, Number<uint32_t>("a value's type"));
    if (type > static_cast<uint32_t>(GgufType::kFloat64)) {
      return Refuse("unknown value type ", type);
    }
    return static_cast<GgufType>(type);
  }

 private:
  std::string_view file_;
  size_t position_ = 0;
};

absl::StatusOr<GgufValue> TakeArray(Cursor& cursor, std::string_view file) {
  STRUCTATTN_ASSIGN_OR_RETURN(const GgufType type, cursor.Type());
  if (type == GgufType::kArray) return Refuse("an array of arrays is not allowed");
  STRUCTATTN_ASSIGN_OR_RETURN(const uint64_t count, cursor.Number<uint64_t>("an array's length"));
  const uint64_t smallest = type == GgufType::kString ? sizeof(uint64_t) : FixedBytes(type);
  if (count > cursor.left() / smallest) {
    return Refuse("array of ", count, " elements, ", cursor.left(), " bytes are left in the file");
  }
  const size_t begin = cursor.position();
  if (type != GgufType::kString) {
    STRUCTATTN_RETURN_IF_ERROR(cursor.Take(count * smallest, "an array").status());
  }
  for (uint64_t i = 0; type == GgufType::kString && i < count; ++i) {
    STRUCTATTN_RETURN_IF_ERROR(cursor.String("a string in an array").status());
  }
  return GgufValue{type, count, file.substr(begin, cursor.position() - begin)};
}

absl::StatusOr<GgufValue> TakeValue(Cursor& cursor, std::string_view file) {
  STRUCTATTN_ASSIGN_OR_RETURN(const GgufType type, cursor.Type());
  if (type == GgufType::kArray) return TakeArray(cursor, file);
  if (type == GgufType::kString) {
    STRUCTATTN_ASSIGN_OR_RETURN(const std::string_view text, cursor.String("a string"));
    return GgufValue{type, std::nullopt, text};
  }
  STRUCTATTN_ASSIGN_OR_RETURN(const std::string_view bytes,
                              cursor.Take(FixedBytes(type), "a number"));
  return GgufValue{type, std::nullopt, bytes};
}

// Fills everything but the bytes; begin and end are still relative to the data.
absl::StatusOr<GgufTensor> TakeTensor(Cursor& cursor) {
  GgufTensor tensor;
  STRUCTATTN_ASSIGN_OR_RETURN(const uint32_t rank, cursor.Number<uint32_t>("a rank"));
  if (rank < 1 || rank > kMostDimensions) {
    return Refuse(rank, " dimensions: allowed are 1 to ", kMostDimensions);
  }
  int64_t elements = 1;
  for (uint32_t i = 0; i < rank; ++i) {
    STRUCTATTN_ASSIGN_OR_RETURN(const auto size, cursor.Number<int64_t>("a dimension"));
    if (size < 1) return Refuse("dimension ", static_cast<uint64_t>(size), " is out of range");
    if (__builtin_mul_overflow(elements, size, &elements)) return Refuse("its shape is too large");
    tensor.dimensions.push_back(size);
  }
  STRUCTATTN_ASSIGN_OR_RETURN(const uint32_t type, cursor.Number<uint32_t>("an encoding"));
  STRUCTATTN_ASSIGN_OR_RETURN(const uint64_t offset, cursor.Number<uint64_t>("an offset"));
  tensor.encoding = FindGgmlEncoding(type);
  if (tensor.encoding == nullptr) {
    return Refuse("encoding ", GgmlTypeName(type), ": supported are ", SupportedGgmlTypes());
  }
  const GgmlEncoding& encoding = *tensor.encoding;
  if (tensor.dimensions[0] % encoding.quant_block_values != 0) {
    return Refuse("rows of ", tensor.dimensions[0], " elements are not whole ", encoding.name,
                  " blocks of ", encoding.quant_block_values);
  }
  int64_t bytes = elements / encoding.quant_block_values;
  if (__builtin_mul_overflow(bytes, encoding.quant_block_bytes, &bytes)) {
    return Refuse("its shape is too large");
  }
  tensor.begin = offset;
  if (__builtin_add_overflow(offset, static_cast<uint64_t>(bytes), &tensor.end)) {
    return Refuse("offset ", offset, " is out of range");
  }
  return tensor;
}

absl::StatusOr<int64_t> Alignment(const Gguf& gguf) {
  std::optional<int64_t> alignment;
  STRUCTATTN_RETURN_IF_ERROR(gguf.Read("general.alignment", alignment));
  if (!alignment) return kDefaultAlignment;
  if (*alignment < 1 || *alignment > kLargestAlignment || (*alignment & (*alignment - 1)) != 0) {
    return Refuse("general.alignment ", *alignment, ": allowed are powers of two up to ",
                  kLargestAlignment);
  }
  return *alignment;
}

using Tensors = std::map<std::string, GgufTensor, std::less<>>;

absl::Status CheckNoOverlap(const Tensors& tensors) {
  std::vector<const Tensors::value_type*> order;
  order.reserve(tensors.size());
  for (const auto& entry : tensors) order.push_back(&entry);
  std::sort(order.begin(), order.end(),
            [](const auto* a, const auto* b) { return a->second.begin < b->second.begin; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->second.begin < order[i - 1]->second.end) {
      return Refuse(Quoted(order[i]->first), ": its data overlap those of ",
                    Quoted(order[i - 1]->first));
    }
  }
  return absl::OkStatus();
}

struct Counts {
  uint64_t tensors;
  uint64_t keys;
};

absl::StatusOr<Counts> TakeHeader(Cursor& cursor) {
  STRUCTATTN_ASSIGN_OR_RETURN(const std::string_view magic, cursor.Take(4, "the header"));
  if (magic != "GGUF") return Refuse("not a GGUF file: it begins with ", Quoted(magic));
  STRUCTATTN_ASSIGN_OR_RETURN(const uint32_t version, cursor.Number<uint32_t>("the header"));
  if (version != 2 && version != 3) {
    return Refuse("GGUF version ", version, ": supported are 2 and 3, little-endian");
  }
  Counts counts;
  STRUCTATTN_ASSIGN_OR_RETURN(counts.tensors, cursor.Number<uint64_t>("the header"));
  STRUCTATTN_ASSIGN_OR_RETURN(counts.keys, cursor.Number<uint64_t>("the header"));
  if (counts.tensors > kMostTensors || counts.tensors > cursor.left() / kSmallestTensorBytes) {
    return Refuse(counts.tensors, " tensors announced in a file with ", cursor.left(),
                  " bytes left (at most ", kMostTensors, " are allowed)");
  }
  if (counts.keys > kMostKeys || counts.keys > cursor.left() / kSmallestEntryBytes) {
    return Refuse(counts.keys, " metadata keys announced in a file with ", cursor.left(),
                  " bytes left (at most ", kMostKeys, " are allowed)");
  }
  return counts;
}

}  // namespace

absl::StatusOr<Gguf> Gguf::Parse(std::string_view file) {
  Cursor cursor(file);
  Gguf gguf;
  STRUCTATTN_ASSIGN_OR_RETURN(const Counts counts, TakeHeader(cursor));
  for (uint64_t i = 0; i < counts.keys; ++i) {
    STRUCTATTN_ASSIGN_OR_RETURN(std::string key, cursor.Name("a metadata key"));
    const absl::StatusOr<GgufValue> value = TakeValue(cursor, file);
    if (!value.ok()) return WithPrefix(Quoted(key), value.status());
    const auto [entry, added] = gguf.metadata_.emplace(std::move(key), *value);
    if (!added) return Refuse("metadata key ", Quoted(entry->first), " appears twice");
  }
  STRUCTATTN_ASSIGN_OR_RETURN(const int64_t alignment, Alignment(gguf));
  for (uint64_t i = 0; i < counts.tensors; ++i) {
    STRUCTATTN_ASSIGN_OR_RETURN(std::string name, cursor.Name("a tensor's name"));
    absl::StatusOr<GgufTensor> tensor = TakeTensor(cursor);
    if (!tensor.ok()) return WithPrefix(Quoted(name), tensor.status());
    const auto [entry, added] = gguf.tensors_.emplace(std::move(name), *std::move(tensor));
    if (!added) return Refuse(Quoted(entry->first), ": tensor appears twice");
  }
  const auto mask = static_cast<size_t>(alignment) - 1;
  gguf.data_begin_ = std::min((cursor.position() + mask) & ~mask, file.size());
  const size_t data_bytes = file.size() - gguf.data_begin_;
  for (auto& [name, tensor] : gguf.tensors_) {
    if ((tensor.begin & mask) != 0) {
      return Refuse(Quoted(name), ": offset ", tensor.begin, " is not a multiple of ", alignment);
    }
    if (tensor.end > data_bytes) {
      return Refuse(Quoted(name), ": its data end at byte ", tensor.end, ", the file's at ",
                    data_bytes);
    }
    tensor.begin += gguf.data_begin_;
    tensor.end += gguf.data_begin_;
    tensor.bytes = file.substr(tensor.begin, tensor.end - tensor.begin);
  }
  STRUCTATTN_RETURN_IF_ERROR(CheckNoOverlap(gguf.tensors_));
  return gguf;
}

absl::Status Gguf::AddTensors(const Gguf& part) {
  for (const auto& [name, tensor] : part.tensors_) {
    const auto [entry, added] = tensors_.emplace(name, tensor);
    if (!added) return Refuse(Quoted(name), ": tensor is in an earlier part too");
  }
  return absl::OkStatus();
}

const GgufValue* Gguf::Find(std::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

const GgufTensor* Gguf::FindTensor(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

}  // namespace structattn
