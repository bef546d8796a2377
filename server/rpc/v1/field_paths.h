// From the logical paths of engine and serving, which know no protocol, to the fields of
// structattn.v1, and errors with these. Other protocols bring a mapping of their own.
#ifndef STRUCTATTN_SERVER_RPC_V1_FIELD_PATHS_H_
#define STRUCTATTN_SERVER_RPC_V1_FIELD_PATHS_H_

#include <grpcpp/support/status.h>

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"

namespace structattn::rpc {

// "rule[2]" -> "rule.table.visible[2]", "rule[2][0]" -> "rule.table.visible[2].groups[0]",
// "branches[1].cue" -> "branches[1].branch_cue"; every other logical path is the field's own.
std::string FieldPath(std::string_view logical);

// ToGrpcStatus and ToRpcStatus (server/rpc/status) with these fields.
grpc::Status ToV1Status(const absl::Status& status);
google::rpc::Status ToV1RpcStatus(const absl::Status& status);

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_V1_FIELD_PATHS_H_
