// The server's life: port, health, reflection, drain.
#include "server/rpc/server.h"

#include <gmock/gmock.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/server/rpc/in_process_server.h"

namespace structattn::rpc {
namespace {

using ::grpc::health::v1::HealthCheckRequest;
using ::grpc::health::v1::HealthCheckResponse;

TEST(RpcServer, ASecondServerOnThePortFailsLoudly) {
  InProcessServer first;
  const std::string& address = first.server().address();
  RpcServerOptions options;
  options.port = std::stoi(address.substr(address.rfind(':') + 1));
  EXPECT_NE(options.port, 0);
  engine::ModelRegistry registry(nullptr);
  const absl::Status status = RpcServer::Start(options, &registry).status();
  EXPECT_TRUE(absl::IsAlreadyExists(status)) << status;
  EXPECT_NE(status.message().find(address), absl::string_view::npos) << status;
  EXPECT_TRUE(RunGenerate(first.inference(), GoodRequest()).InOrder());
}

TEST(RpcServer, AnAddressOfSomebodyElseIsNotATakenPort) {
  engine::ModelRegistry registry(nullptr);
  RpcServerOptions options;
  options.host = "192.0.2.1";  // TEST-NET-1, never a local address.
  const absl::Status status = RpcServer::Start(options, &registry).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
}

// Debian ships no header of the reflection protocol, so the messages are bytes here:
// ServerReflectionRequest.list_services is field 7, a string; the answer holds the names.
TEST(Reflection, ListsEveryService) {
  InProcessServer server;
  grpc::GenericStub stub(server.channel());
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(
      &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  const auto wait = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  call->StartCall(call.get());
  ASSERT_TRUE(wait());
  grpc::Slice request(std::string("\x3a\x01*"));
  call->Write(grpc::ByteBuffer(&request, 1), call.get());
  ASSERT_TRUE(wait());
  grpc::ByteBuffer response;
  call->Read(&response, call.get());
  ASSERT_TRUE(wait());
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(response.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  for (const char* name :
       {"structattn.v1.InferenceService", "structattn.v1.ModelService", "grpc.health.v1.Health"}) {
    EXPECT_THAT(bytes, ::testing::HasSubstr(name));
  }
  call->WritesDone(call.get());
  wait();
  grpc::Status status;
  call->Finish(&status, call.get());
  EXPECT_TRUE(wait());
}

TEST(Health, FollowsLoadingServingAndDraining) {
  InProcessServer server({.models = {"a", "b"}, .open = false});
  for (const char* name : {"", "structattn.v1.InferenceService", "model/a", "model/b"}) {
    EXPECT_EQ(server.Health(name), "NOT_SERVING") << name;
  }
  server.server().Open();
  for (const char* name : {"", "structattn.v1.InferenceService", "model/a", "model/b"}) {
    EXPECT_EQ(server.Health(name), "SERVING") << name;
  }
  EXPECT_EQ(server.Health("model/c"), "");
  ASSERT_TRUE(server.registry().Unload("a").ok());
  EXPECT_EQ(server.Health("model/a"), "NOT_SERVING");
  EXPECT_EQ(server.Health(""), "SERVING");
  ASSERT_TRUE(server.registry().Unload("b").ok());
  EXPECT_EQ(server.Health(""), "NOT_SERVING");
  ASSERT_TRUE(server.registry().Load({.name = "c", .path = "good"}).ok());
  EXPECT_EQ(server.Health("model/c"), "SERVING");
  EXPECT_EQ(server.Health(""), "SERVING");
  server.server().AnnounceDrain();
  EXPECT_EQ(server.Health(""), "NOT_SERVING");
  EXPECT_EQ(server.Health("model/c"), "NOT_SERVING");
}

TEST(Health, WatchHearsChangesAndEndsWithTheDrain) {
  InProcessServer server({.open = false});
  const auto stub = grpc::health::v1::Health::NewStub(server.channel());
  grpc::ClientContext context;
  const auto reader = stub->Watch(&context, HealthCheckRequest());
  HealthCheckResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  server.server().Open();
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  const absl::Time begin = absl::Now();
  std::jthread drain([&] { server.server().Drain(absl::Now() + absl::Seconds(30)); });
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  drain.join();
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
}

TEST(Health, WatchOfAnUnknownNameSaysSoAndMayBeCancelled) {
  InProcessServer server;
  const auto stub = grpc::health::v1::Health::NewStub(server.channel());
  grpc::ClientContext context;
  HealthCheckRequest request;
  request.set_service("model/none");
  const auto reader = stub->Watch(&context, request);
  HealthCheckResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  context.TryCancel();
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST(Drain, FinishesRunningStreamsAndRefusesNewOnes) {
  InProcessServer server({.step_time = absl::Milliseconds(2)});
  grpc::ClientContext context;
  const auto reader = server.inference().Generate(&context, GoodRequest(200));
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  server.server().AnnounceDrain();
  EXPECT_TRUE(RunGenerate(server.inference(), GoodRequest(2)).InOrder());  // Still taken.
  bool all_done = false;
  std::jthread drain([&] { all_done = server.server().Drain(absl::Now() + absl::Seconds(60)); });
  StreamResult late;
  do {
    late = RunGenerate(server.inference(), GoodRequest(2));
  } while (late.status.ok());
  EXPECT_EQ(late.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  int tokens = 0;
  while (reader->Read(&response)) tokens += response.chunk().token_ids_size();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(tokens, 200);
  EXPECT_EQ(response.finished().reason(), v1::FINISH_REASON_LENGTH);
  drain.join();
  EXPECT_TRUE(all_done);
}

TEST(Drain, PastItsDeadlineStreamsEndAsCancelled) {
  InProcessServer server({.step_time = absl::Milliseconds(2)});
  grpc::ClientContext context;
  const auto reader = server.inference().Generate(&context, GoodRequest(4000));
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  const absl::Time begin = absl::Now();
  bool all_done = true;
  std::jthread drain(
      [&] { all_done = server.server().Drain(absl::Now() + absl::Milliseconds(200)); });
  while (reader->Read(&response)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(response.finished().reason(), v1::FINISH_REASON_CANCELLED);
  drain.join();
  EXPECT_FALSE(all_done);
  EXPECT_LT(absl::Now() - begin, absl::Seconds(8));  // All 4000 steps would take longer.
}

}  // namespace
}  // namespace structattn::rpc
