// The messages of a GenerateBatch stream: bytes to requests, answers to bytes. It looks at the form
// of a message only; request_codec and server/serving check what a request means.
#ifndef STRUCTATTN_SERVER_RPC_V1_BATCH_CODEC_H_
#define STRUCTATTN_SERVER_RPC_V1_BATCH_CODEC_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <deque>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/rpc/v1/batch_call.h"
#include "server/rpc/v1/batch_window.h"
#include "structattn/v1/inference_service.pb.h"

namespace structattn::rpc {

// INVALID_ARGUMENT when the bytes are no such message, text that is not UTF-8 included. The reason
// why the stream carries bytes: gRPC itself cannot tell such a message from the end of the stream.
absl::StatusOr<v1::GenerateBatchRequest> ParseBatchRequest(grpc::ByteBuffer* bytes);

grpc::ByteBuffer SerializeBatchResponse(const v1::GenerateBatchResponse& response);

// The id of the request, or of the one to cancel; empty for other messages.
const std::string& RequestIdOf(const v1::GenerateBatchRequest& message);
// The model that a request names; empty for other messages.
const std::string& ModelOf(const v1::GenerateBatchRequest& message);

absl::StatusOr<BatchSettings> DecodeBatchOptions(const v1::BatchOptions& options);

// What the client gets for `entry`: the parts, or the error.
std::deque<v1::GenerateBatchResponse> EncodeBatchAnswer(const BatchEntry& entry,
                                                        BatchOutcome outcome);

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_V1_BATCH_CODEC_H_
