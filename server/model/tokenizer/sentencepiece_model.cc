// Reads the wire format of protocol buffers. Field numbers are those of sentencepiece_model.proto.
#include "server/model/tokenizer/sentencepiece_model.h"

#include <cmath>
#include <cstring>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/sentencepiece_config.h"
#include "server/model/tokenizer/tokenizer_config.h"
#include "server/model/tokenizer/utf8.h"

namespace structattn {
namespace {

absl::Status Malformed() {
  return absl::InvalidArgumentError("is not a SentencePiece model (malformed protocol buffer)");
}

// One field of a message.
struct Field {
  uint32_t number = 0;
  uint64_t integer = 0;    // Of a number, also of a fixed one.
  std::string_view bytes;  // Of a string or a message.
};

std::optional<uint64_t> TakeVarint(std::string_view* message) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64 && !message->empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(message->front());
    message->remove_prefix(1);
    value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return value;
  }
  return std::nullopt;
}

// Takes `size` bytes of a little-endian number away.
std::optional<uint64_t> TakeFixed(size_t size, std::string_view* message) {
  if (message->size() < size) return std::nullopt;
  uint64_t value = 0;
  for (size_t i = size; i > 0; --i) value = value << 8 | static_cast<uint8_t>((*message)[i - 1]);
  message->remove_prefix(size);
  return value;
}

std::optional<Field> TakeField(std::string_view* message) {
  const std::optional<uint64_t> key = TakeVarint(message);
  if (!key.has_value() || *key >> 3 == 0 || *key >> 32 != 0) return std::nullopt;
  Field field{.number = static_cast<uint32_t>(*key >> 3), .integer = 0, .bytes = {}};
  std::optional<uint64_t> value;
  switch (*key & 7) {
    case 0:
    case 2:
      value = TakeVarint(message);
      break;
    case 1:
      value = TakeFixed(8, message);
      break;
    case 5:
      value = TakeFixed(4, message);
      break;
    default:
      return std::nullopt;
  }
  if (!value.has_value()) return std::nullopt;
  field.integer = *value;
  if ((*key & 7) == 2) {
    if (*value > message->size()) return std::nullopt;
    field.bytes = message->substr(0, *value);
    message->remove_prefix(*value);
  }
  return field;
}

// Calls f(field) for each field of the message; f returns a status.
template <typename F>
absl::Status ForEachField(std::string_view message, F f) {
  while (!message.empty()) {
    const std::optional<Field> field = TakeField(&message);
    if (!field.has_value()) return Malformed();
    STRUCTATTN_RETURN_IF_ERROR(f(*field));
  }
  return absl::OkStatus();
}

absl::Status ReadPiece(std::string_view message, SentencePieceModel* model) {
  std::string text;
  float score = 0.0F;
  int32_t type = kNormalPiece;
  STRUCTATTN_RETURN_IF_ERROR(ForEachField(message, [&](const Field& field) {
    if (field.number == 1) text = field.bytes;
    if (field.number == 2) {
      const auto bits = static_cast<uint32_t>(field.integer);
      std::memcpy(&score, &bits, sizeof(score));
    }
    if (field.number == 3) type = static_cast<int32_t>(field.integer);
    return absl::OkStatus();
  }));
  const size_t id = model->texts.size();
  const auto refuse = [id](const char* reason) {
    return absl::InvalidArgumentError(absl::StrFormat("pieces[%d]: %s", id, reason));
  };
  if (id >= static_cast<size_t>(kMaxVocabularySize)) return refuse("there are too many");
  if (!IsValidUtf8(text) || text.empty()) return refuse("is empty or not UTF-8");
  if (!std::isfinite(score)) return refuse("its score is no finite number");
  if (type < kNormalPiece || type > kBytePiece) return refuse("its type is not 1 to 6");
  model->texts.push_back(std::move(text));
  model->scores.push_back(score);
  model->types.push_back(type);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(std::string_view bytes) {
  SentencePieceModel model;
  const auto read_trainer = [&model](const Field& field) {
    if (field.number == 3) model.model_type = static_cast<int32_t>(field.integer);
    return absl::OkStatus();
  };
  const auto read_normalizer = [&model](const Field& field) {
    if (field.number == 2) model.has_charsmap = !field.bytes.empty();
    return absl::OkStatus();
  };
  STRUCTATTN_RETURN_IF_ERROR(ForEachField(bytes, [&](const Field& field) {
    if (field.number == 1) return ReadPiece(field.bytes, &model);
    if (field.number == 2) return ForEachField(field.bytes, read_trainer);
    if (field.number == 3) return ForEachField(field.bytes, read_normalizer);
    return absl::OkStatus();
  }));
  if (model.texts.empty()) return absl::InvalidArgumentError("has no pieces");
  return model;
}

}  // namespace structattn
