// See inference_service.h.
#include "server/rpc/inference_service.h"

#include <algorithm>
#include <string>
#include <utility>

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

void InferenceService::Close() {
  phase_ = Phase::kDraining;
  for (const std::shared_ptr<BatchStream>& batch : batches_.List()) batch->EndWith(CheckOpen());
}

void InferenceService::CancelStreams() {
  for (const std::shared_ptr<GenerateStream>& stream : streams_.List()) stream->CancelWork();
  for (const std::shared_ptr<BatchStream>& batch : batches_.List()) batch->CancelWork();
}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  const std::shared_ptr<GenerateStream> stream = NewStream(*request);
  absl::StatusOr<AdmittedRequest> admitted = Admit(*request, absl::FromChrono(context->deadline()));
  if (admitted.ok()) {
    stream->Start(std::move(admitted->served), std::move(admitted->request),
                  request->output().echo());
  } else {
    stream->Refuse(admitted.status());
  }
  return stream.get();
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* InferenceService::GenerateBatch(
    grpc::CallbackServerContext* context) {
  const absl::Time deadline = absl::FromChrono(context->deadline());
  const auto stream = std::make_shared<BatchStream>(BatchStream::Options{
      .admit = [this,
                deadline](const v1::GenerateRequest& request) { return Admit(request, deadline); },
      .max_requests = limits_.max_requests_per_stream,
      .on_done = [this](const BatchStream* done) { batches_.Remove(done); }});
  batches_.Add(stream);
  stream->Start();
  // Close() comes before this check or finds the stream in the list.
  if (const absl::Status open = CheckOpen(); !open.ok()) stream->EndWith(open);
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

absl::StatusOr<AdmittedRequest> InferenceService::Admit(const v1::GenerateRequest& request,
                                                        absl::Time call_deadline) const {
  STRUCTATTN_RETURN_IF_ERROR(CheckOpen());
  STRUCTATTN_ASSIGN_OR_RETURN(std::shared_ptr<ServedModel> served,
                              registry_->Find(request.model()));
  STRUCTATTN_ASSIGN_OR_RETURN(Request decoded,
                              DecodeGenerateRequest(request, *served->model, limits_));
  decoded.deadline = std::min(decoded.deadline, call_deadline);
  return AdmittedRequest{.served = std::move(served), .request = std::move(decoded)};
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
  auto stream = std::make_shared<GenerateStream>(
      std::move(labels), [this](const GenerateStream* done) { streams_.Remove(done); });
  streams_.Add(stream);
  return stream;
}

}  // namespace structattn
