// Implements batch_codec.h.
#include "server/rpc/v1/batch_codec.h"

#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "server/engine/field_error.h"
#include "server/rpc/v1/field_paths.h"
#include "server/serving/limits.h"

namespace structattn::rpc {
namespace {

constexpr int32_t kMaxInFlight = serving::Limits::kMaxInFlight;

}  // namespace

absl::StatusOr<v1::GenerateBatchRequest> ParseBatchRequest(grpc::ByteBuffer* bytes) {
  v1::GenerateBatchRequest message;
  grpc::ProtoBufferReader reader(bytes);
  if (!reader.status().ok() || !message.ParseFromZeroCopyStream(&reader)) {
    return engine::InvalidField(
        "", "MALFORMED_MESSAGE",
        absl::StrCat("the ", bytes->Length(),
                     " bytes are no GenerateBatchRequest with text in UTF-8"));
  }
  return message;
}

grpc::ByteBuffer SerializeBatchResponse(const v1::GenerateBatchResponse& response) {
  grpc::ByteBuffer bytes;
  bool own = false;
  STRUCTATTN_CHECK(
      grpc::SerializationTraits<v1::GenerateBatchResponse>::Serialize(response, &bytes, &own).ok());
  return bytes;
}

const std::string& RequestIdOf(const v1::GenerateBatchRequest& message) {
  if (message.has_cancel()) return message.cancel().request_id();
  return message.has_score() ? message.score().request_id() : message.generate().request_id();
}

const std::string& ModelOf(const v1::GenerateBatchRequest& message) {
  return message.has_score() ? message.score().model() : message.generate().model();
}

absl::StatusOr<BatchSettings> DecodeBatchOptions(const v1::BatchOptions& options) {
  BatchSettings settings;
  switch (options.order()) {
    case v1::BATCH_ORDER_UNSPECIFIED:
    case v1::BATCH_ORDER_AS_FINISHED:
      break;
    case v1::BATCH_ORDER_INPUT:
      settings.in_input_order = true;
      break;
    default:
      return engine::InvalidField("options.order", "UNKNOWN_ENUM_VALUE",
                                  absl::StrCat(options.order(), " is none of AS_FINISHED, INPUT"));
  }
  if (options.max_in_flight() < 0 || options.max_in_flight() > kMaxInFlight) {
    return engine::InvalidField(
        "options.max_in_flight", "VALUE_OUT_OF_RANGE",
        absl::StrCat(options.max_in_flight(), " is not in 0..", kMaxInFlight));
  }
  if (options.max_in_flight() > 0) settings.max_entries = options.max_in_flight();
  return settings;
}

std::deque<v1::GenerateBatchResponse> EncodeBatchAnswer(const BatchEntry& entry,
                                                        BatchOutcome outcome) {
  if (!outcome.error.ok()) {
    outcome.parts.assign(1, {});
    *outcome.parts.front().mutable_error() = ToV1RpcStatus(outcome.error);
  }
  for (v1::GenerateBatchResponse& part : outcome.parts) {
    part.set_message_index(entry.index);
    part.set_request_id(entry.request_id);
  }
  return std::move(outcome.parts);
}

}  // namespace structattn::rpc
