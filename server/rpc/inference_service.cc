// See inference_service.h.
#include "server/rpc/inference_service.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "server/model/status_macros.h"
#include "server/rpc/log.h"
#include "server/rpc/response_codec.h"
#include "server/rpc/status.h"

namespace structattn {
namespace {

// Clients may send any string as a name; the log takes its beginning.
constexpr size_t kMaxLoggedBytes = 256;

}  // namespace

void InferenceService::CancelStreams() {
  std::vector<std::shared_ptr<GenerateStream>> streams;
  {
    std::lock_guard lock(streams_mutex_);
    for (const auto& [key, stream] : streams_) streams.push_back(stream);
  }
  for (const std::shared_ptr<GenerateStream>& stream : streams) stream->CancelWork();
}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  const std::shared_ptr<GenerateStream> stream = NewStream(*request);
  const absl::Status status = StartStream(*context, *request, stream.get());
  if (!status.ok()) stream->Refuse(status);
  return stream.get();
}

grpc::ServerUnaryReactor* InferenceService::Inspect(grpc::CallbackServerContext* context,
                                                    const v1::InspectRequest* request,
                                                    v1::InspectResponse* response) {
  const absl::Status status = FillInspect(*request, response);
  LogFields fields = {{"method", "Inspect"},
                      {"model", request->model().substr(0, kMaxLoggedBytes)},
                      {"code", absl::StatusCodeToString(status.code())},
                      {"prompt_tokens", response->tokens_size()}};
  if (!status.ok()) fields["error"] = std::string(status.message());
  Log(spdlog::level::info, "request", fields);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

absl::Status InferenceService::CheckOpen() const {
  switch (phase_) {
    case Phase::kLoading:
      return absl::UnavailableError("the server is still loading its models");
    case Phase::kOpen:
      return absl::OkStatus();
    case Phase::kDraining:
      return absl::UnavailableError("the server is stopping and takes no new requests");
  }
  return absl::OkStatus();
}

absl::Status InferenceService::StartStream(const grpc::CallbackServerContext& context,
                                           const v1::GenerateRequest& request,
                                           GenerateStream* stream) {
  STRUCTATTN_RETURN_IF_ERROR(CheckOpen());
  STRUCTATTN_ASSIGN_OR_RETURN(std::shared_ptr<ServedModel> served,
                              registry_->Find(request.model()));
  STRUCTATTN_ASSIGN_OR_RETURN(Request decoded,
                              DecodeGenerateRequest(request, *served->model, limits_));
  decoded.deadline = std::min(decoded.deadline, absl::FromChrono(context.deadline()));
  stream->Start(std::move(served), std::move(decoded), request.output().echo());
  return absl::OkStatus();
}

absl::Status InferenceService::FillInspect(const v1::InspectRequest& request,
                                           v1::InspectResponse* response) const {
  STRUCTATTN_RETURN_IF_ERROR(CheckOpen());
  STRUCTATTN_ASSIGN_OR_RETURN(const std::shared_ptr<ServedModel> served,
                              registry_->Find(request.model()));
  STRUCTATTN_ASSIGN_OR_RETURN(const EncodedPrompt prompt,
                              DecodeInspectRequest(request, *served->model, limits_));
  *response = EncodeInspect(prompt, *served->model->tokenizer);
  return absl::OkStatus();
}

std::shared_ptr<GenerateStream> InferenceService::NewStream(const v1::GenerateRequest& request) {
  GenerateStream::Labels labels = {.request_id = request.request_id().substr(0, kMaxLoggedBytes),
                                   .model = request.model().substr(0, kMaxLoggedBytes)};
  auto stream =
      std::make_shared<GenerateStream>(std::move(labels), [this](const GenerateStream* done) {
        std::shared_ptr<GenerateStream> last;  // Outlives the lock.
        std::lock_guard lock(streams_mutex_);
        const auto found = streams_.find(done);
        last = std::move(found->second);
        streams_.erase(found);
      });
  std::lock_guard lock(streams_mutex_);
  streams_.emplace(stream.get(), stream);
  return stream;
}

}  // namespace structattn
