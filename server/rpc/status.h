// The one place where absl::Status becomes what clients get, google.rpc details included.
// Called by every service of server/rpc; decides nothing about codes.
#ifndef STRUCTATTN_SERVER_RPC_STATUS_H_
#define STRUCTATTN_SERVER_RPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"

namespace structattn {

// Same code. Details: BadRequest when the status is about a field, ErrorInfo with a reason in the
// domain "structattn" always, RetryInfo for RESOURCE_EXHAUSTED that passes by itself (one that is
// about a field does not). Messages are cut to fit into HTTP/2 trailers and made valid UTF-8.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The same as a message, for errors inside a stream; not OK.
google::rpc::Status ToRpcStatus(const absl::Status& status);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_STATUS_H_
