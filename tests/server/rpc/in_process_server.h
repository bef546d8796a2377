// A whole server in the test's own process, on a port of its own, with models that cost nothing;
// and the client's view of it.
#ifndef STRUCTATTN_TESTS_SERVER_RPC_IN_PROCESS_SERVER_H_
#define STRUCTATTN_TESTS_SERVER_RPC_IN_PROCESS_SERVER_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/engine/model_registry.h"
#include "server/rpc/server.h"
#include "structattn/v1/inference_service.grpc.pb.h"
#include "structattn/v1/model_service.grpc.pb.h"
#include "tests/server/engine/fakes.h"

namespace structattn::rpc {

inline constexpr int64_t kTestContextLength = 4096;

// One token per byte; every byte has its id below kNanId.
class ByteTokenizer final : public engine::fake::FakeTokenizer {
 public:
  absl::StatusOr<std::vector<Token>> Encode(std::span<const TextSegment> segments,
                                            const std::stop_token& stop) const override;
};

struct TestServerOptions {
  std::vector<std::string> models = {"m"};
  engine::EngineOptions engine = {};
  RpcServerOptions rpc = {};
  int32_t kv_blocks = 1024;
  absl::Duration step_time = absl::ZeroDuration();  // Each step of a model takes this long.
  bool open = true;
};

class InProcessServer {
 public:
  explicit InProcessServer(const TestServerOptions& options = {});
  ~InProcessServer();

  RpcServer& server() { return *server_; }
  engine::ModelRegistry& registry() { return registry_; }
  std::shared_ptr<grpc::Channel> channel() const { return channel_; }
  v1::InferenceService::Stub& inference() { return *inference_; }
  v1::ModelService::Stub& models() { return *models_; }

  // Steps that the named model has run.
  int64_t StepsOf(const std::string& name);
  // True once it has run that many.
  bool ReachesSteps(const std::string& name, int64_t steps);
  // True once the model has run no step for a while.
  bool BecomesIdle(const std::string& name);

  // "" when the name is unknown to health checks.
  std::string Health(const std::string& name);

 private:
  absl::StatusOr<std::unique_ptr<engine::ServedModel>> Load(const engine::ModelSource& source);

  const TestServerOptions options_;
  std::mutex steps_mutex_;
  std::map<std::string, int64_t> steps_;
  engine::ModelRegistry registry_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::InferenceService::Stub> inference_;
  std::unique_ptr<v1::ModelService::Stub> models_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

// The google.rpc details of a refused call.
struct ErrorDetails {
  std::string field;
  std::string description;
  std::string reason;
  std::string domain;
  bool has_retry = false;
};
ErrorDetails DetailsOf(const grpc::Status& status);

// A small prompt that is fine: an instruction, two paraphrases, a cue.
v1::GenerateRequest GoodRequest(int max_tokens = 8);

// What the fake model must answer, computed without server, engine or cache.
engine::fake::Expected ExpectedFor(const v1::GenerateRequest& request);

// A whole stream, in order.
struct StreamResult {
  grpc::Status status;
  std::vector<v1::GenerateResponse> responses;

  std::string Text() const;
  std::vector<int32_t> TokenIds() const;
  // Started, chunks, Finished, and as many log-probabilities as ids.
  bool InOrder() const;
  const v1::Finished& finished() const { return responses.back().finished(); }
};
StreamResult RunGenerate(v1::InferenceService::Stub& stub, const v1::GenerateRequest& request);

}  // namespace structattn::rpc

#endif  // STRUCTATTN_TESTS_SERVER_RPC_IN_PROCESS_SERVER_H_
