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
  auto call = std::make_shared<NewCall>(std::move(labels), [this](const Call* done) {
    std::shared_ptr<Call> last;  // Outlives the lock.
    std::lock_guard lock(calls_mutex_);
    const auto found = calls_.find(done);
    last = std::move(found->second);
    calls_.erase(found);
  });
  std::lock_guard lock(calls_mutex_);
  calls_.emplace(call.get(), call);
  return call;
}

void InferenceService::CancelCalls() {
  std::vector<std::shared_ptr<Call>> calls;
  {
    std::lock_guard lock(calls_mutex_);
    for (const auto& [key, call] : calls_) calls.push_back(call);
  }
  for (const std::shared_ptr<Call>& call : calls) call->CancelWork();
}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  const auto stream = Keep<GenerateStream>("Generate", *request);
  const absl::Status status = StartStream(*context, *request, stream.get());
  if (!status.ok()) stream->Refuse(status);
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

absl::Status InferenceService::StartStream(const grpc::CallbackServerContext& context,
                                           const v1::GenerateRequest& request,
                                           GenerateStream* stream) {
  STRUCTATTN_ASSIGN_OR_RETURN(std::shared_ptr<ServedModel> served, FindModel(request.model()));
  STRUCTATTN_ASSIGN_OR_RETURN(Request decoded,
                              DecodeGenerateRequest(request, *served->model, limits_));
  decoded.deadline = std::min(decoded.deadline, DeadlineOf(context));
  stream->Start(std::move(served), std::move(decoded), request.output().echo());
  return absl::OkStatus();
}

absl::Status InferenceService::StartScore(const grpc::CallbackServerContext& context,
                                          const v1::ScoreRequest& request,
                                          v1::ScoreResponse* response, ScoreCall* call) {
  STRUCTATTN_ASSIGN_OR_RETURN(std::shared_ptr<ServedModel> served, FindModel(request.model()));
  STRUCTATTN_ASSIGN_OR_RETURN(DecodedScore decoded, DecodeScoreRequest(request, *served, limits_));
  decoded.request.deadline = std::min(decoded.request.deadline, DeadlineOf(context));
  *response = std::move(decoded.reply);
  call->Start(std::move(served), std::move(decoded.request),
              [response, places = std::move(decoded.places)](const ScoreEvent& event) {
                FillScores(event, places, response);
              });
  return absl::OkStatus();
}

absl::Status InferenceService::StartRolling(const grpc::CallbackServerContext& context,
                                            const v1::ScoreRollingRequest& request,
                                            v1::ScoreRollingResponse* response, ScoreCall* call) {
  STRUCTATTN_ASSIGN_OR_RETURN(std::shared_ptr<ServedModel> served, FindModel(request.model()));
  STRUCTATTN_ASSIGN_OR_RETURN(DecodedRolling decoded,
                              DecodeScoreRollingRequest(request, *served, limits_));
  decoded.request.deadline = std::min(decoded.request.deadline, DeadlineOf(context));
  *response = std::move(decoded.reply);
  call->Start(std::move(served), std::move(decoded.request),
              [response](const ScoreEvent& event) { FillScores(event, response); });
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<ServedModel>> InferenceService::FindModel(
    const std::string& name) const {
  STRUCTATTN_RETURN_IF_ERROR(CheckOpen());
  return registry_->Find(name);
}

absl::Status InferenceService::FillInspect(const v1::InspectRequest& request,
                                           v1::InspectResponse* response) const {
  STRUCTATTN_ASSIGN_OR_RETURN(const std::shared_ptr<ServedModel> served,
                              FindModel(request.model()));
  STRUCTATTN_ASSIGN_OR_RETURN(const EncodedPrompt prompt,
                              DecodeInspectRequest(request, *served->model, limits_));
  *response = EncodeInspect(prompt, *served->model->tokenizer);
  return absl::OkStatus();
}

}  // namespace structattn
