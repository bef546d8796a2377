// See inference_service.h.
#include "server/rpc/inference_service.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "server/model/status_macros.h"
#include "server/rpc/log.h"
#include "server/rpc/response_codec.h"
#include "server/rpc/score_codec.h"
#include "server/rpc/status.h"

namespace structattn {
namespace {

// Clients may send any string as a name; the log takes its beginning.
constexpr size_t kMaxLoggedBytes = 256;

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  return absl::FromChrono(context.deadline());
}

}  // namespace

template <typename NewCall, typename Message>
std::shared_ptr<NewCall> InferenceService::Keep(const char* method, const Message& request) {
  Call::Labels labels = {.method = method,
                         .request_id = request.request_id().substr(0, kMaxLoggedBytes),
                         .model = request.model().substr(0, kMaxLoggedBytes)};
  auto call = std::make_shared<NewCall>(std::move(labels),
                                        [this](const Call* done) { calls_.Remove(done); });
  calls_.Add(call);
  return call;
}

void InferenceService::Close() {
  phase_ = Phase::kDraining;
  for (const std::shared_ptr<BatchStream>& batch : batches_.List()) batch->EndWith(CheckOpen());
}

void InferenceService::CancelCalls() {
  for (const std::shared_ptr<Call>& call : calls_.List()) call->CancelWork();
  for (const std::shared_ptr<BatchStream>& batch : batches_.List()) batch->CancelWork();
}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  const auto stream = Keep<GenerateStream>("Generate", *request);
  absl::StatusOr<AdmittedRequest> admitted = Admit(*request, DeadlineOf(*context));
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
  const absl::Time deadline = DeadlineOf(*context);
  const auto stream = std::make_shared<BatchStream>(BatchStream::Options{
      .admit = [this, deadline](
                   const v1::GenerateBatchRequest& message) { return Admit(message, deadline); },
      .max_requests = limits_.max_requests_per_stream,
      .on_done = [this](const BatchStream* done) { batches_.Remove(done); }});
  batches_.Add(stream);
  stream->Start();
  // Close() comes before this check or finds the stream in the list.
  if (const absl::Status open = CheckOpen(); !open.ok()) stream->EndWith(open);
  return stream.get();
}

grpc::ServerUnaryReactor* InferenceService::Score(grpc::CallbackServerContext* context,
                                                  const v1::ScoreRequest* request,
                                                  v1::ScoreResponse* response) {
  const auto call = Keep<ScoreCall>("Score", *request);
  const absl::Status status = StartScore(*context, *request, response, call.get());
  if (!status.ok()) call->Refuse(status);
  return call.get();
}

grpc::ServerUnaryReactor* InferenceService::ScoreRolling(grpc::CallbackServerContext* context,
                                                         const v1::ScoreRollingRequest* request,
                                                         v1::ScoreRollingResponse* response) {
  const auto call = Keep<ScoreCall>("ScoreRolling", *request);
  const absl::Status status = StartRolling(*context, *request, response, call.get());
  if (!status.ok()) call->Refuse(status);
  return call.get();
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
  STRUCTATTN_ASSIGN_OR_RETURN(std::shared_ptr<engine::ServedModel> served,
                              FindModel(request.model()));
  STRUCTATTN_ASSIGN_OR_RETURN(engine::GenerateRequest decoded,
                              DecodeGenerateRequest(request, *served->model, limits_));
  decoded.deadline = std::min(decoded.deadline, call_deadline);
  return AdmittedRequest{.served = std::move(served), .request = std::move(decoded)};
}

absl::StatusOr<AdmittedScore> InferenceService::Admit(const v1::ScoreRequest& request,
                                                      absl::Time call_deadline) const {
  STRUCTATTN_ASSIGN_OR_RETURN(std::shared_ptr<engine::ServedModel> served,
                              FindModel(request.model()));
  STRUCTATTN_ASSIGN_OR_RETURN(DecodedScore decoded, DecodeScoreRequest(request, *served, limits_));
  decoded.request.deadline = std::min(decoded.request.deadline, call_deadline);
  return AdmittedScore{.served = std::move(served), .score = std::move(decoded)};
}

absl::StatusOr<std::shared_ptr<BatchWork>> InferenceService::Admit(
    const v1::GenerateBatchRequest& message, absl::Time call_deadline) const {
  if (message.has_score()) {
    STRUCTATTN_ASSIGN_OR_RETURN(AdmittedScore admitted, Admit(message.score(), call_deadline));
    return NewScoreWork(std::move(admitted));
  }
  STRUCTATTN_ASSIGN_OR_RETURN(AdmittedRequest admitted, Admit(message.generate(), call_deadline));
  return NewGenerateWork(std::move(admitted), message.generate().output().echo());
}

absl::Status InferenceService::StartScore(const grpc::CallbackServerContext& context,
                                          const v1::ScoreRequest& request,
                                          v1::ScoreResponse* response, ScoreCall* call) {
  STRUCTATTN_ASSIGN_OR_RETURN(AdmittedScore admitted, Admit(request, DeadlineOf(context)));
  *response = std::move(admitted.score.reply);
  call->Start(std::move(admitted.served), std::move(admitted.score.request),
              [response, places = std::move(admitted.score.places)](
                  const engine::ScoreEvent& event) { FillScores(event, places, response); });
  return absl::OkStatus();
}

absl::Status InferenceService::StartRolling(const grpc::CallbackServerContext& context,
                                            const v1::ScoreRollingRequest& request,
                                            v1::ScoreRollingResponse* response, ScoreCall* call) {
  STRUCTATTN_ASSIGN_OR_RETURN(std::shared_ptr<engine::ServedModel> served,
                              FindModel(request.model()));
  STRUCTATTN_ASSIGN_OR_RETURN(DecodedRolling decoded,
                              DecodeScoreRollingRequest(request, *served, limits_));
  decoded.request.deadline = std::min(decoded.request.deadline, DeadlineOf(context));
  *response = std::move(decoded.reply);
  call->Start(std::move(served), std::move(decoded.request),
              [response](const engine::ScoreEvent& event) { FillScores(event, response); });
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<engine::ServedModel>> InferenceService::FindModel(
    const std::string& name) const {
  STRUCTATTN_RETURN_IF_ERROR(CheckOpen());
  return registry_->Find(name);
}

absl::Status InferenceService::FillInspect(const v1::InspectRequest& request,
                                           v1::InspectResponse* response) const {
  STRUCTATTN_ASSIGN_OR_RETURN(const std::shared_ptr<engine::ServedModel> served,
                              FindModel(request.model()));
  STRUCTATTN_ASSIGN_OR_RETURN(const engine::EncodedPrompt prompt,
                              DecodeInspectRequest(request, *served->model, limits_));
  *response = EncodeInspect(prompt, *served->model->tokenizer);
  return absl::OkStatus();
}

}  // namespace structattn
