// structattn.v1.InferenceService: Generate, Score, ScoreRolling and Inspect.
// Registered by server/rpc/server. Reads requests, checks them, hands them to the model's engine;
// the work itself happens on the engine's thread.
#ifndef STRUCTATTN_SERVER_RPC_INFERENCE_SERVICE_H_
#define STRUCTATTN_SERVER_RPC_INFERENCE_SERVICE_H_

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "server/engine/model_registry.h"
#include "server/rpc/generate_stream.h"
#include "server/rpc/request_codec.h"
#include "server/rpc/score_call.h"
#include "structattn/v1/inference_service.grpc.pb.h"

namespace structattn {

class InferenceService final : public v1::InferenceService::CallbackService {
 public:
  // `registry` outlives the service.
  InferenceService(const ModelRegistry* registry, const RequestLimits& limits)
      : registry_(registry), limits_(limits) {}

  // Until Open and after Close, requests are answered with UNAVAILABLE.
  void Open() { phase_ = Phase::kOpen; }
  void Close() { phase_ = Phase::kDraining; }
  // Stops every call; clients of streams hear FINISH_REASON_CANCELLED, others CANCELLED.
  void CancelCalls();

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override;
  grpc::ServerUnaryReactor* ScoreRolling(grpc::CallbackServerContext* context,
                                         const v1::ScoreRollingRequest* request,
                                         v1::ScoreRollingResponse* response) override;
  grpc::ServerUnaryReactor* Inspect(grpc::CallbackServerContext* context,
                                    const v1::InspectRequest* request,
                                    v1::InspectResponse* response) override;

 private:
  enum class Phase { kLoading, kOpen, kDraining };

  absl::Status CheckOpen() const;
  absl::Status StartStream(const grpc::CallbackServerContext& context,
                           const v1::GenerateRequest& request, GenerateStream* stream);
  absl::Status FillInspect(const v1::InspectRequest& request, v1::InspectResponse* response) const;
  absl::Status StartScore(const grpc::CallbackServerContext& context,
                          const v1::ScoreRequest& request, v1::ScoreResponse* response,
                          ScoreCall* call);
  absl::Status StartRolling(const grpc::CallbackServerContext& context,
                            const v1::ScoreRollingRequest& request,
                            v1::ScoreRollingResponse* response, ScoreCall* call);
  // The model asked for, while requests are taken.
  absl::StatusOr<std::shared_ptr<ServedModel>> FindModel(const std::string& name) const;
  // A call that is kept until it is done.
  template <typename NewCall, typename Message>
  std::shared_ptr<NewCall> Keep(const char* method, const Message& request);

  const ModelRegistry* const registry_;
  const RequestLimits limits_;
  std::atomic<Phase> phase_ = Phase::kLoading;
  std::mutex calls_mutex_;
  // Keeps every call alive until its OnDone.
  std::map<const Call*, std::shared_ptr<Call>> calls_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_INFERENCE_SERVICE_H_
