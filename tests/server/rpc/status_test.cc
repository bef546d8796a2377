// Holds server/rpc/status against the wire format of google.rpc.
#include "server/rpc/status.h"

#include <gtest/gtest.h>

#include <string>

#include "server/engine/field_error.h"
#include "tests/server/rpc/in_process_server.h"

namespace structattn::rpc {
namespace {

TEST(ToGrpcStatus, KeepsEveryCode) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  for (int code = 1; code <= 16; ++code) {
    const grpc::Status status =
        ToGrpcStatus(absl::Status(static_cast<absl::StatusCode>(code), "why"));
    EXPECT_EQ(status.error_code(), code);
    EXPECT_EQ(status.error_message(), "why");
    EXPECT_EQ(DetailsOf(status).domain, "structattn");
    EXPECT_FALSE(DetailsOf(status).reason.empty());
  }
}

TEST(ToGrpcStatus, NamesFieldAndReason) {
  const grpc::Status status =
      ToGrpcStatus(engine::InvalidField("segments[3].type", "SOME_REASON", "7 is not allowed"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const ErrorDetails details = DetailsOf(status);
  EXPECT_EQ(details.field, "segments[3].type");
  EXPECT_EQ(details.description, "segments[3].type: 7 is not allowed");
  EXPECT_EQ(details.reason, "SOME_REASON");
  EXPECT_FALSE(details.has_retry);
}

TEST(ToGrpcStatus, AsksForARetryOnlyWhenItCanHelp) {
  const auto exhausted = [](const std::string& field) {
    return DetailsOf(ToGrpcStatus(
        engine::FieldError(absl::StatusCode::kResourceExhausted, {field, "QUEUE_FULL"}, "full")));
  };
  EXPECT_TRUE(exhausted("").has_retry);
  EXPECT_EQ(exhausted("").reason, "QUEUE_FULL");
  EXPECT_EQ(exhausted("").field, "");
  EXPECT_FALSE(exhausted("stopping.max_tokens").has_retry);
  EXPECT_FALSE(DetailsOf(ToGrpcStatus(absl::InternalError("broken"))).has_retry);
}

TEST(ToGrpcStatus, FitsIntoTrailersWhateverTheMessageHolds) {
  std::string message = "tensor \xff\xfe\n \xc3\xa9 ";
  message.append(100'000, 'x');
  const grpc::Status status = ToGrpcStatus(engine::InvalidField("path", "R", message));
  EXPECT_LT(status.error_message().size() + status.error_details().size(), 4096u);
  EXPECT_EQ(status.error_message().substr(0, 20), "path: tensor ??? ? x");
  EXPECT_EQ(DetailsOf(status).reason, "R");
}

}  // namespace
}  // namespace structattn::rpc
