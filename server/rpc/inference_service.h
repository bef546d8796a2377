// structattn.v1.InferenceService: Generate and Inspect.
// Registered by server/rpc/server. Reads requests, checks them, hands them to the model's engine;
// the work itself happens on the engine's thread.
#ifndef STRUCTATTN_SERVER_RPC_INFERENCE_SERVICE_H_
#define STRUCTATTN_SERVER_RPC_INFERENCE_SERVICE_H_

#include <atomic>
#include <map>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "server/engine/model_registry.h"
#include "server/rpc/generate_stream.h"
#include "server/rpc/request_codec.h"
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
  // Stops every stream; the clients hear FINISH_REASON_CANCELLED.
  void CancelStreams();

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Inspect(grpc::CallbackServerContext* context,
                                    const v1::InspectRequest* request,
                                    v1::InspectResponse* response) override;

 private:
  enum class Phase { kLoading, kOpen, kDraining };

  absl::Status CheckOpen() const;
  absl::Status StartStream(const grpc::CallbackServerContext& context,
                           const v1::GenerateRequest& request, GenerateStream* stream);
  absl::Status FillInspect(const v1::InspectRequest& request, v1::InspectResponse* response) const;
  std::shared_ptr<GenerateStream> NewStream(const v1::GenerateRequest& request);

  const ModelRegistry* const registry_;
  const RequestLimits limits_;
  std::atomic<Phase> phase_ = Phase::kLoading;
  std::mutex streams_mutex_;
  // Keeps every stream alive until its OnDone.
  std::map<const GenerateStream*, std::shared_ptr<GenerateStream>> streams_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_INFERENCE_SERVICE_H_
