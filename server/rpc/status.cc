// Implements status.h.
#include "server/rpc/status.h"

#include <optional>
#include <string>
#include <string_view>

#include "google/protobuf/message.h"
#include "google/rpc/error_details.pb.h"
#include "server/engine/field_error.h"

namespace structattn::rpc {
namespace {

constexpr char kDomain[] = "structattn";
constexpr int kRetryDelaySeconds = 1;
// The message travels up to three times; clients accept 8 KiB of trailers by default.
constexpr size_t kMaxMessageBytes = 1024;

bool IsContinuationByte(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

// Names from model files and clients may hold any bytes, so only printable ASCII passes; each other
// character becomes one '?'.
std::string CleanMessage(std::string_view message) {
  std::string clean;
  for (char c : message.substr(0, kMaxMessageBytes)) {
    if (IsContinuationByte(c)) continue;
    clean.push_back(c >= ' ' && c <= '~' ? c : '?');
  }
  if (message.size() > kMaxMessageBytes) clean.append("...");
  return clean;
}

void AddDetail(const google::protobuf::Message& detail, google::rpc::Status* status) {
  status->add_details()->PackFrom(detail);
}

// A message that begins with the field's logical path begins with the protocol's name for it.
void RenameField(const std::string& path, engine::FieldErrorDetail* detail, std::string* message) {
  const std::string prefix = detail->field + ":";
  if (!detail->field.empty() && message->starts_with(prefix)) {
    message->replace(0, detail->field.size(), path);
  }
  detail->field = path;
}

}  // namespace

google::rpc::Status ToRpcStatus(const absl::Status& status, FieldPathOf field_path) {
  std::string text(status.message());
  std::optional<engine::FieldErrorDetail> field_error = engine::GetFieldErrorDetail(status);
  if (field_error.has_value() && field_path != nullptr) {
    RenameField(field_path(field_error->field), &*field_error, &text);
  }
  const std::string message = CleanMessage(text);

  google::rpc::Status rich;
  rich.set_code(static_cast<int>(status.code()));
  rich.set_message(message);
  google::rpc::ErrorInfo info;
  info.set_domain(kDomain);
  info.set_reason(absl::StatusCodeToString(status.code()));
  if (field_error.has_value()) info.set_reason(field_error->reason);
  if (field_error.has_value() && !field_error->field.empty()) {
    google::rpc::BadRequest bad_request;
    google::rpc::BadRequest::FieldViolation* violation = bad_request.add_field_violations();
    violation->set_field(
        CleanMessage(field_path == nullptr ? field_error->field : field_path(field_error->field)));
    violation->set_description(message);
    AddDetail(bad_request, &rich);
  } else if (absl::IsResourceExhausted(status)) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(kRetryDelaySeconds);
    AddDetail(retry, &rich);
  }
  AddDetail(info, &rich);
  return rich;
}

grpc::Status ToGrpcStatus(const absl::Status& status, FieldPathOf field_path) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status rich = ToRpcStatus(status, field_path);
  return grpc::Status(static_cast<grpc::StatusCode>(rich.code()), rich.message(),
                      rich.SerializeAsString());
}

}  // namespace structattn::rpc
