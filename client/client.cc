// See client.h.
#include "client/client.h"

#include <array>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace structattn::client {
namespace {

// A prompt echoed with token ids, groups and positions can be larger than gRPC's default of 4 MiB.
constexpr int kMaxReceiveBytes = 64 << 20;

// Without keepalive, a server whose host has vanished would never be noticed; with it, in a minute.
constexpr int kKeepaliveMs = 30'000;
constexpr int kKeepaliveTimeoutMs = 20'000;

bool IsLoopback(const std::string& address) {
  return address.starts_with("127.") || address.starts_with("localhost:") ||
         address.starts_with("[::1]");
}

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // A proxy that the environment names cannot reach this machine's own addresses.
  if (IsLoopback(address)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

// No request has as many continuations, so an index from here on is an error of the server.
constexpr int32_t kMaxContinuations = 1 << 16;

}  // namespace

void Generation::Append(const v1::Chunk& chunk) {
  if (chunk.index() < 0 || chunk.index() >= kMaxContinuations) return;
  const size_t index = chunk.index();
  if (index >= continuations.size()) continuations.resize(index + 1);
  Continued& continued = continuations[index];
  continued.group = chunk.group();
  if (chunk.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
    continued.reason = chunk.finish_reason();
  }
  continued.text += chunk.text();
  const auto append = [](const auto& from, auto* to) {
    to->insert(to->end(), from.begin(), from.end());
  };
  append(chunk.token_ids(), &continued.token_ids);
  append(chunk.logprobs(), &continued.logprobs);
  append(chunk.top_logprobs(), &continued.top_logprobs);
  append(chunk.member_logprobs(), &continued.member_logprobs);
}

ErrorDetail GetErrorDetail(const grpc::Status& status) {
  ErrorDetail detail;
  google::rpc::Status wire;
  if (!wire.ParseFromString(status.error_details())) return detail;
  for (const google::protobuf::Any& any : wire.details()) {
    google::rpc::BadRequest bad_request;
    google::rpc::ErrorInfo error_info;
    google::rpc::RetryInfo retry_info;
    if (any.UnpackTo(&bad_request) && bad_request.field_violations_size() > 0) {
      detail.field = bad_request.field_violations(0).field();
    } else if (any.UnpackTo(&error_info)) {
      detail.reason = error_info.reason();
    } else if (any.UnpackTo(&retry_info)) {
      const google::protobuf::Duration& delay = retry_info.retry_delay();
      detail.retry_delay =
          std::chrono::milliseconds(delay.seconds() * 1000 + delay.nanos() / 1000000);
    }
  }
  return detail;
}

std::string CodeName(grpc::StatusCode code) {
  static constexpr std::array<const char*, 17> kNames = {"OK",
                                                         "CANCELLED",
                                                         "UNKNOWN",
                                                         "INVALID_ARGUMENT",
                                                         "DEADLINE_EXCEEDED",
                                                         "NOT_FOUND",
                                                         "ALREADY_EXISTS",
                                                         "PERMISSION_DENIED",
                                                         "RESOURCE_EXHAUSTED",
                                                         "FAILED_PRECONDITION",
                                                         "ABORTED",
                                                         "OUT_OF_RANGE",
                                                         "UNIMPLEMENTED",
                                                         "INTERNAL",
                                                         "UNAVAILABLE",
                                                         "DATA_LOSS",
                                                         "UNAUTHENTICATED"};
  const size_t index = static_cast<size_t>(code);
  return index < kNames.size() ? kNames[index] : "UNKNOWN";
}

Client::Client(const std::string& address)
    : channel_(Connect(address)),
      inference_(v1::InferenceService::NewStub(channel_)),
      models_(v1::ModelService::NewStub(channel_)) {}

grpc::Status Client::Generate(grpc::ClientContext& context, const v1::GenerateRequest& request,
                              const OnChunk& on_chunk, Generation* generation) const {
  const std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader =
      inference_->Generate(&context, request);
  v1::GenerateResponse response;
  bool finished = false;
  while (reader->Read(&response)) {
    if (response.has_started()) {
      generation->started = response.started();
    } else if (response.has_chunk()) {
      generation->Append(response.chunk());
      if (on_chunk) on_chunk(response.chunk());
    } else if (response.has_finished()) {
      generation->finished = response.finished();
      finished = true;
    }
  }
  grpc::Status status = reader->Finish();
  if (status.ok() && !finished) {
    return {grpc::StatusCode::DATA_LOSS, "the stream ended before its last message"};
  }
  return status;
}

grpc::Status Client::Score(grpc::ClientContext& context, const v1::ScoreRequest& request,
                           v1::ScoreResponse* response) const {
  return inference_->Score(&context, request, response);
}

grpc::Status Client::Inspect(grpc::ClientContext& context, const v1::InspectRequest& request,
                             v1::InspectResponse* response) const {
  return inference_->Inspect(&context, request, response);
}

grpc::Status Client::ListModels(grpc::ClientContext& context,
                                v1::ListModelsResponse* response) const {
  return models_->ListModels(&context, {}, response);
}

}  // namespace structattn::client
