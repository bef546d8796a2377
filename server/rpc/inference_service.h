// structattn.v1.InferenceService: Generate, GenerateBatch, Score, ScoreRolling and Inspect.
// Registered by server/rpc/server. Reads requests, checks them, hands them to the model's engine;
// the work itself happens on the engine's thread.
#ifndef STRUCTATTN_SERVER_RPC_INFERENCE_SERVICE_H_
#define STRUCTATTN_SERVER_RPC_INFERENCE_SERVICE_H_

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/engine/model_registry.h"
#include "server/rpc/batch_stream.h"
#include "server/rpc/generate_stream.h"
#include "server/rpc/live_calls.h"
#include "server/rpc/request_codec.h"
#include "server/rpc/score_call.h"
#include "structattn/v1/inference_service.grpc.pb.h"

namespace structattn {

// GenerateBatch is raw: its stream parses the messages itself (see batch_codec).
using InferenceServiceBase = v1::InferenceService::WithRawCallbackMethod_GenerateBatch<
    v1::InferenceService::WithCallbackMethod_Generate<
        v1::InferenceService::WithCallbackMethod_Score<
            v1::InferenceService::WithCallbackMethod_ScoreRolling<
                v1::InferenceService::WithCallbackMethod_Inspect<v1::InferenceService::Service>>>>>;

class InferenceService final : public InferenceServiceBase {
 public:
  // `registry` outlives the service.
  InferenceService(const engine::ModelRegistry* registry, const RequestLimits& limits)
      : registry_(registry), limits_(limits) {}

  // Until Open and after Close, requests are answered with UNAVAILABLE.
  void Open() { phase_ = Phase::kOpen; }
  void Close();
  // Stops the work of every call; clients of streams hear FINISH_REASON_CANCELLED, others
  // CANCELLED.
  void CancelCalls();

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* GenerateBatch(
      grpc::CallbackServerContext* context) override;
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
  // Find the model and check the request; its deadline is the call's at the latest.
  absl::StatusOr<AdmittedRequest> Admit(const v1::GenerateRequest& request,
                                        absl::Time call_deadline) const;
  absl::StatusOr<AdmittedScore> Admit(const v1::ScoreRequest& request,
                                      absl::Time call_deadline) const;
  absl::StatusOr<std::shared_ptr<BatchWork>> Admit(const v1::GenerateBatchRequest& message,
                                                   absl::Time call_deadline) const;
  absl::Status FillInspect(const v1::InspectRequest& request, v1::InspectResponse* response) const;
  absl::Status StartScore(const grpc::CallbackServerContext& context,
                          const v1::ScoreRequest& request, v1::ScoreResponse* response,
                          ScoreCall* call);
  absl::Status StartRolling(const grpc::CallbackServerContext& context,
                            const v1::ScoreRollingRequest& request,
                            v1::ScoreRollingResponse* response, ScoreCall* call);
  // The model asked for, while requests are taken.
  absl::StatusOr<std::shared_ptr<engine::ServedModel>> FindModel(const std::string& name) const;
  // A call that is kept until it is done.
  template <typename NewCall, typename Message>
  std::shared_ptr<NewCall> Keep(const char* method, const Message& request);

  const engine::ModelRegistry* const registry_;
  const RequestLimits limits_;
  std::atomic<Phase> phase_ = Phase::kLoading;
  LiveCalls<Call> calls_;
  LiveCalls<BatchStream> batches_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_INFERENCE_SERVICE_H_
