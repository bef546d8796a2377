// Implements inference_service.h.
#include "server/rpc/v1/inference_service.h"

#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "server/rpc/v1/generate_stream.h"
#include "server/rpc/v1/request_codec.h"
#include "server/rpc/v1/response_codec.h"
#include "server/rpc/v1/unary_call.h"

namespace structattn::rpc {
namespace {

serving::Call::Options OptionsOf(const char* method, const grpc::CallbackServerContext& context) {
  return {
      .method = method, .caller = context.peer(), .deadline = absl::FromChrono(context.deadline())};
}

}  // namespace

void InferenceService::EndBatches(const absl::Status& status) {
  std::vector<std::shared_ptr<BatchStream>> batches;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [key, batch] : batches_) batches.push_back(batch);
  }
  for (const std::shared_ptr<BatchStream>& batch : batches) batch->EndWith(status);
}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  return GenerateStream::Start(door_, OptionsOf("Generate", *context), *request);
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* InferenceService::GenerateBatch(
    grpc::CallbackServerContext* context) {
  const auto stream = std::make_shared<BatchStream>(
      BatchStream::Options{.door = door_,
                           .call = OptionsOf("GenerateBatch", *context),
                           .on_done = [this](const BatchStream* done) {
                             std::shared_ptr<BatchStream> last;  // Outlives the lock.
                             absl::MutexLock lock(&mutex_);
                             const auto found = batches_.find(done);
                             last = std::move(found->second);
                             batches_.erase(found);
                           }});
  {
    absl::MutexLock lock(&mutex_);
    batches_.emplace(stream.get(), stream);
  }
  stream->Start();
  // The door closes before this check, or EndBatches finds the stream in the list.
  if (const absl::Status open = door_->CheckOpen(); !open.ok()) stream->EndWith(open);
  return stream.get();
}

grpc::ServerUnaryReactor* InferenceService::Score(grpc::CallbackServerContext* context,
                                                  const v1::ScoreRequest* request,
                                                  v1::ScoreResponse* response) {
  const auto reactor = std::make_shared<ScoreReactor>(
      [response](const serving::ScoreAnswer& answer) { *response = EncodeScores(answer); });
  serving::ScoreRequest decoded;
  const absl::Status status = DecodeScoreRequest(*request, door_->limits(), &decoded);
  reactor->Start(door_,
                 std::make_shared<serving::ScoreCall>(OptionsOf("Score", *context),
                                                      std::move(decoded), reactor),
                 status);
  return reactor.get();
}

grpc::ServerUnaryReactor* InferenceService::ScoreRolling(grpc::CallbackServerContext* context,
                                                         const v1::ScoreRollingRequest* request,
                                                         v1::ScoreRollingResponse* response) {
  const auto reactor = std::make_shared<ScoreReactor>(
      [response](const serving::ScoreAnswer& answer) { *response = EncodeRollingScores(answer); });
  serving::ScoreRollingRequest decoded;
  const absl::Status status = DecodeScoreRollingRequest(*request, &decoded);
  reactor->Start(door_,
                 std::make_shared<serving::ScoreCall>(OptionsOf("ScoreRolling", *context),
                                                      std::move(decoded), reactor),
                 status);
  return reactor.get();
}

grpc::ServerUnaryReactor* InferenceService::Inspect(grpc::CallbackServerContext* context,
                                                    const v1::InspectRequest* request,
                                                    v1::InspectResponse* response) {
  const auto reactor = std::make_shared<InspectReactor>(response);
  serving::InspectRequest decoded;
  const absl::Status status = DecodeInspectRequest(*request, door_->limits(), &decoded);
  reactor->Start(door_,
                 std::make_shared<serving::InspectCall>(OptionsOf("Inspect", *context),
                                                        std::move(decoded), reactor),
                 status);
  return reactor.get();
}

}  // namespace structattn::rpc
