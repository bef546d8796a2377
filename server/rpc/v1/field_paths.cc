// Implements field_paths.h.
#include "server/rpc/v1/field_paths.h"

#include "absl/strings/str_cat.h"
#include "server/rpc/status.h"

namespace structattn::rpc {
namespace {

constexpr std::string_view kRule = "rule";
constexpr std::string_view kCue = ".cue";

// What follows "rule": the row in brackets, then the entry of that row.
std::string RulePath(std::string_view indices) {
  const size_t row_end = indices.find(']');
  if (row_end == std::string_view::npos) return "rule.table.visible";
  std::string path =
      absl::StrCat("rule.table.visible", std::string(indices.substr(0, row_end + 1)));
  const std::string_view entry = indices.substr(row_end + 1);
  if (!entry.empty()) absl::StrAppend(&path, ".groups", std::string(entry));
  return path;
}

}  // namespace

std::string FieldPath(std::string_view logical) {
  if (logical == kRule || logical.starts_with("rule[")) {
    return RulePath(logical.substr(kRule.size()));
  }
  if (logical.starts_with("branches[") && logical.ends_with(kCue)) {
    return absl::StrCat(std::string(logical.substr(0, logical.size() - kCue.size())),
                        ".branch_cue");
  }
  return std::string(logical);
}

grpc::Status ToV1Status(const absl::Status& status) { return ToGrpcStatus(status, FieldPath); }

google::rpc::Status ToV1RpcStatus(const absl::Status& status) {
  return ToRpcStatus(status, FieldPath);
}

}  // namespace structattn::rpc
