// The one place where absl::Status becomes what clients get, google.rpc details included. It
// decides nothing about codes and knows no protocol's fields.
#ifndef STRUCTATTN_SERVER_RPC_STATUS_H_
#define STRUCTATTN_SERVER_RPC_STATUS_H_

#include <grpcpp/support/status.h>

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"

namespace structattn::rpc {

// A protocol's name for the logical path of a field.
using FieldPathOf = std::string (*)(std::string_view logical);

// Same code. Details: BadRequest when the status is about a field, ErrorInfo with a reason in the
// domain "structattn" always, RetryInfo for RESOURCE_EXHAUSTED that passes by itself (one that is
// about a field does not). Messages are cut to fit into HTTP/2 trailers and made valid UTF-8.
// Without `field_path` the logical path is the field's.
grpc::Status ToGrpcStatus(const absl::Status& status, FieldPathOf field_path = nullptr);

// The same as a message, for errors inside a stream; not OK.
google::rpc::Status ToRpcStatus(const absl::Status& status, FieldPathOf field_path = nullptr);

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_STATUS_H_
