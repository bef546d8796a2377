// Implements in_process_server.h.
#include "tests/server/rpc/in_process_server.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <utility>

#include "absl/time/clock.h"
#include "google/rpc/status.pb.h"
#include "kernels/check.h"
#include "tests/server/rpc/v1/prepared.h"

namespace structattn::rpc {

absl::StatusOr<std::vector<Token>> ByteTokenizer::Encode(std::span<const TextSegment> segments,
                                                         const std::stop_token&) const {
  std::vector<Token> tokens;
  for (size_t i = 0; i < segments.size(); ++i) {
    for (char c : segments[i].text) {
      tokens.push_back(
          {static_cast<unsigned char>(c) % engine::fake::kNanId, static_cast<int32_t>(i)});
    }
  }
  return tokens;
}

InProcessServer::InProcessServer(const TestServerOptions& options)
    : options_(options),
      registry_([this](const engine::ModelSource& source) { return Load(source); }) {
  absl::StatusOr<std::unique_ptr<RpcServer>> server = RpcServer::Start(options.rpc, &registry_);
  STRUCTATTN_CHECK(server.ok());
  server_ = *std::move(server);
  for (const std::string& name : options.models) {
    STRUCTATTN_CHECK(registry_.Load({.name = name, .path = "good"}).ok());
  }
  if (options.open) server_->Open();
  grpc::ChannelArguments arguments;
  arguments.SetInt("grpc.use_local_subchannel_pool", 1);
  // A fixed, small window, so that a client that does not read is felt by the server.
  arguments.SetInt("grpc.http2.bdp_probe", 0);
  arguments.SetInt("grpc.http2.lookahead_bytes", 64 << 10);
  channel_ =
      grpc::CreateCustomChannel(server_->address(), grpc::InsecureChannelCredentials(), arguments);
  inference_ = v1::InferenceService::NewStub(channel_);
  models_ = v1::ModelService::NewStub(channel_);
  health_ = grpc::health::v1::Health::NewStub(channel_);
}

InProcessServer::~InProcessServer() { server_.reset(); }

absl::StatusOr<std::unique_ptr<engine::ServedModel>> InProcessServer::Load(
    const engine::ModelSource& source) {
  if (source.path.ends_with("bad")) {
    return absl::FailedPreconditionError("model.safetensors: tensor x: shape [1], expected [2]");
  }
  engine::fake::FakeModel fake(kTestContextLength);
  fake.model->tokenizer = std::make_unique<ByteTokenizer>();
  fake.model->digest = "d1";
  fake.model->weight_format = "fake weights";
  fake.model->kernel = "fake";
  fake.model->dtype = DType::kFloat32;
  fake.model->device = Device{};
  fake.model->parameters = 7;
  fake.decoder->on_forward = [this, name = source.name](const StepBatch&) {
    absl::SleepFor(options_.step_time);
    std::lock_guard lock(steps_mutex_);
    ++steps_[name];
  };
  const KvShape kv = fake.decoder->MakeKv(options_.kv_blocks);
  auto served = std::make_unique<engine::ServedModel>();
  served->name = source.name;
  served->model = std::move(fake.model);
  served->engine = std::make_unique<engine::Engine>(served->model.get(), kv, options_.engine);
  return served;
}

int64_t InProcessServer::StepsOf(const std::string& name) {
  std::lock_guard lock(steps_mutex_);
  return steps_[name];
}

bool InProcessServer::ReachesSteps(const std::string& name, int64_t steps) {
  const absl::Time give_up = absl::Now() + absl::Seconds(60);
  while (StepsOf(name) < steps && absl::Now() < give_up) absl::SleepFor(absl::Milliseconds(5));
  return StepsOf(name) >= steps;
}

bool InProcessServer::BecomesIdle(const std::string& name) {
  const absl::Duration quiet = absl::Milliseconds(200) + 5 * options_.step_time;
  const absl::Time give_up = absl::Now() + absl::Seconds(20);
  while (absl::Now() < give_up) {
    const int64_t before = StepsOf(name);
    absl::SleepFor(quiet);
    if (StepsOf(name) == before) return true;
  }
  return false;
}

std::string InProcessServer::Health(const std::string& name) {
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest request;
  grpc::health::v1::HealthCheckResponse response;
  request.set_service(name);
  const grpc::Status status = health_->Check(&context, request, &response);
  if (status.error_code() == grpc::StatusCode::NOT_FOUND) return "";
  if (!status.ok()) return status.error_message();
  return grpc::health::v1::HealthCheckResponse::ServingStatus_Name(response.status());
}

ErrorDetails DetailsOf(const grpc::Status& status) {
  ErrorDetails details;
  google::rpc::Status rich;
  if (!rich.ParseFromString(status.error_details())) return details;
  STRUCTATTN_CHECK(rich.code() == status.error_code());
  STRUCTATTN_CHECK(rich.message() == status.error_message());
  for (const google::protobuf::Any& any : rich.details()) {
    google::rpc::BadRequest bad_request;
    google::rpc::ErrorInfo info;
    if (any.UnpackTo(&bad_request)) {
      details.field = bad_request.field_violations(0).field();
      details.description = bad_request.field_violations(0).description();
    } else if (any.UnpackTo(&info)) {
      details.reason = info.reason();
      details.domain = info.domain();
    } else if (any.Is<google::rpc::RetryInfo>()) {
      details.has_retry = true;
    }
  }
  return details;
}

v1::GenerateRequest GoodRequest(int max_tokens) {
  v1::GenerateRequest request;
  request.set_request_id("r1");
  request.set_model("m");
  const auto add = [&](v1::SegmentType type, const std::string& text) {
    v1::Segment* segment = request.mutable_prompt()->add_segments();
    segment->set_type(type);
    segment->set_text(text);
    return segment;
  };
  add(v1::SEGMENT_TYPE_INSTRUCTION, "Answer.\n");
  add(v1::SEGMENT_TYPE_QUESTION, "Capital?\n")->set_paraphrase_index(0);
  add(v1::SEGMENT_TYPE_QUESTION, "Which city?\n")->set_paraphrase_index(1);
  add(v1::SEGMENT_TYPE_ANSWER_CUE, "A:");
  request.mutable_stopping()->set_max_tokens(max_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  // Generated tokens must not trip the fake decoder's mines.
  (*request.mutable_sampling()->mutable_logit_bias())[engine::fake::kThrowId] = -1000.0f;
  (*request.mutable_sampling()->mutable_logit_bias())[engine::fake::kNanId] = -1000.0f;
  return request;
}

engine::fake::Expected ExpectedFor(const v1::GenerateRequest& request) {
  engine::fake::FakeModel fake(kTestContextLength);
  fake.model->tokenizer = std::make_unique<ByteTokenizer>();
  return engine::fake::ExpectedResult(*Prepared(request, *fake.model), kTestContextLength);
}

std::string StreamResult::Text() const {
  std::string text;
  for (const v1::GenerateResponse& response : responses) text += response.chunk().text();
  return text;
}

std::vector<int32_t> StreamResult::TokenIds() const {
  std::vector<int32_t> ids;
  for (const v1::GenerateResponse& response : responses) {
    ids.insert(ids.end(), response.chunk().token_ids().begin(), response.chunk().token_ids().end());
  }
  return ids;
}

bool StreamResult::InOrder() const {
  if (responses.size() < 2 || !responses.front().has_started()) return false;
  if (!responses.back().has_finished()) return false;
  for (size_t i = 1; i + 1 < responses.size(); ++i) {
    if (!responses[i].has_chunk()) return false;
    if (responses[i].chunk().token_ids_size() != responses[i].chunk().logprobs_size()) return false;
  }
  return true;
}

StreamResult RunGenerate(v1::InferenceService::Stub& stub, const v1::GenerateRequest& request) {
  StreamResult result;
  grpc::ClientContext context;
  const auto reader = stub.Generate(&context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) result.responses.push_back(response);
  result.status = reader->Finish();
  return result;
}

}  // namespace structattn::rpc
