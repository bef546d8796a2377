// structattn.v1.InferenceService: Generate, GenerateBatch, Score, ScoreRolling and Inspect. It
// makes a reactor and a call of each and admits the call at the FrontDoor; it checks and runs
// nothing.
#ifndef STRUCTATTN_SERVER_RPC_V1_INFERENCE_SERVICE_H_
#define STRUCTATTN_SERVER_RPC_V1_INFERENCE_SERVICE_H_

#include <map>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/rpc/v1/batch_stream.h"
#include "server/serving/front_door.h"
#include "structattn/v1/inference_service.grpc.pb.h"

namespace structattn::rpc {

// GenerateBatch is raw: its stream parses the messages itself (see batch_codec).
using InferenceServiceBase = v1::InferenceService::WithRawCallbackMethod_GenerateBatch<
    v1::InferenceService::WithCallbackMethod_Generate<
        v1::InferenceService::WithCallbackMethod_Score<
            v1::InferenceService::WithCallbackMethod_ScoreRolling<
                v1::InferenceService::WithCallbackMethod_Inspect<v1::InferenceService::Service>>>>>;

class InferenceService final : public InferenceServiceBase {
 public:
  // `door` outlives the service.
  explicit InferenceService(serving::FrontDoor* door) : door_(door) {}

  // Ends every batch stream with `status`, once what engines have accepted is answered.
  void EndBatches(const absl::Status& status);

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
  serving::FrontDoor* const door_;
  absl::Mutex mutex_;
  // Every stream lives until gRPC is done with it.
  std::map<const BatchStream*, std::shared_ptr<BatchStream>> batches_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_V1_INFERENCE_SERVICE_H_
