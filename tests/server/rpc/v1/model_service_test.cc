// ModelService over a real connection, and the paths that it refuses.
#include "server/rpc/v1/model_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "server/engine/field_error.h"
#include "tests/server/rpc/in_process_server.h"

namespace structattn::rpc {
namespace {

namespace fs = std::filesystem;

// root/good, root/bad, root/inside -> root/good, root/outside -> secret, next to root.
class ModelRootTest : public ::testing::Test {
 protected:
  void SetUp() override {
    base_ = fs::path(::testing::TempDir()) / ("structattn_model_root_" + std::to_string(getpid()));
    fs::remove_all(base_);
    fs::create_directories(base_ / "root" / "sub");
    for (const char* name : {"root/good", "root/bad", "root/sub/good", "secret"}) {
      std::ofstream(base_ / name) << "x";
    }
    fs::create_symlink(base_ / "root/good", base_ / "root/inside");
    fs::create_symlink(base_ / "secret", base_ / "root/outside");
    fs::create_symlink("../..", base_ / "root/sub/up");
  }
  void TearDown() override { fs::remove_all(base_); }

  std::string root() const { return (base_ / "root").string(); }

  TestServerOptions WithRoot() const {
    TestServerOptions options;
    options.rpc.model_root = root();
    return options;
  }

  fs::path base_;
};

grpc::Status Load(InProcessServer* server, const std::string& name, const std::string& path) {
  v1::LoadModelRequest request;
  request.set_name(name);
  request.set_path(path);
  v1::LoadModelResponse response;
  grpc::ClientContext context;
  const grpc::Status status = server->models().LoadModel(&context, request, &response);
  if (status.ok()) {
    EXPECT_EQ(response.model().name(), name);
  }
  return status;
}

grpc::Status Unload(InProcessServer* server, const std::string& name) {
  v1::UnloadModelRequest request;
  request.set_name(name);
  v1::UnloadModelResponse response;
  grpc::ClientContext context;
  return server->models().UnloadModel(&context, request, &response);
}

TEST_F(ModelRootTest, PathsBelowTheRootAreResolved) {
  const std::string real_root = fs::canonical(root()).string();
  EXPECT_EQ(*ResolveBelowRoot(root(), "good"), real_root + "/good");
  EXPECT_EQ(*ResolveBelowRoot(root(), "./sub/../good"), real_root + "/good");
  EXPECT_EQ(*ResolveBelowRoot(root(), "inside"), real_root + "/good");
  EXPECT_EQ(*ResolveBelowRoot(root() + "/", "sub//good"), real_root + "/sub/good");
}

TEST_F(ModelRootTest, PathsThatLeaveTheRootAreRefused) {
  for (const std::string& path :
       {std::string("../secret"), std::string("/etc/passwd"), std::string(".."),
        std::string("sub/../../secret"), std::string("outside"), std::string("sub/up"),
        std::string("sub/up/secret"), base_.string() + "/root/good", std::string("../nowhere")}) {
    const absl::Status status = ResolveBelowRoot(root(), path).status();
    ASSERT_TRUE(absl::IsInvalidArgument(status)) << path << ": " << status;
    EXPECT_EQ(engine::GetFieldErrorDetail(status)->reason, "PATH_OUTSIDE_MODEL_ROOT") << path;
  }
  for (const std::string& path : {std::string(), std::string("good\0x", 6)}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ResolveBelowRoot(root(), path).status()));
  }
  EXPECT_TRUE(absl::IsNotFound(ResolveBelowRoot(root(), "nowhere").status()));
}

TEST_F(ModelRootTest, LoadsServesAndUnloads) {
  InProcessServer server(WithRoot());
  ASSERT_TRUE(Load(&server, "new", "good").ok());
  v1::GenerateRequest request = GoodRequest();
  request.set_model("new");
  EXPECT_TRUE(RunGenerate(server.inference(), request).InOrder());
  EXPECT_EQ(server.Health("model/new"), "SERVING");
  ASSERT_TRUE(Unload(&server, "new").ok());
  EXPECT_EQ(RunGenerate(server.inference(), request).status.error_code(),
            grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Unload(&server, "new").error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ModelRootTest, RefusesBadLoadsAndKeepsItsModels) {
  InProcessServer server(WithRoot());
  EXPECT_EQ(Load(&server, "m", "good").error_code(), grpc::StatusCode::ALREADY_EXISTS);
  const grpc::Status refused = Load(&server, "new", "bad");
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_NE(refused.error_message().find("tensor x"), std::string::npos);
  const grpc::Status bad_name = Load(&server, "a/b", "good");
  EXPECT_EQ(bad_name.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailsOf(bad_name).field, "name");
  const grpc::Status outside = Load(&server, "new", "outside");
  EXPECT_EQ(outside.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailsOf(outside).field, "path");
  EXPECT_TRUE(RunGenerate(server.inference(), GoodRequest()).InOrder());
}

TEST_F(ModelRootTest, UnloadWaitsForRunningRequests) {
  TestServerOptions options = WithRoot();
  options.step_time = absl::Milliseconds(2);
  InProcessServer server(options);
  grpc::ClientContext context;
  const auto reader = server.inference().Generate(&context, GoodRequest(200));
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  std::jthread unload([&] { EXPECT_TRUE(Unload(&server, "m").ok()); });
  int tokens = 0;
  while (reader->Read(&response)) tokens += response.chunk().token_ids_size();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(tokens, 200);
  unload.join();
}

TEST_F(ModelRootTest, AClientMayLeaveWhileAnUnloadWaits) {
  TestServerOptions options = WithRoot();
  options.step_time = absl::Milliseconds(2);
  InProcessServer server(options);
  grpc::ClientContext stream_context;
  const auto reader = server.inference().Generate(&stream_context, GoodRequest(300));
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  v1::UnloadModelRequest request;
  request.set_name("m");
  v1::UnloadModelResponse unloaded;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  EXPECT_EQ(server.models().UnloadModel(&context, request, &unloaded).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  while (reader->Read(&response)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
}

TEST(ModelService, ChangesAreDeniedWithoutAModelRoot) {
  InProcessServer server;
  EXPECT_EQ(Load(&server, "new", "good").error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(Unload(&server, "m").error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(RunGenerate(server.inference(), GoodRequest()).InOrder());
}

TEST(ModelService, ListsAndGetsByName) {
  InProcessServer server({.models = {"b", "a"}});
  v1::ListModelsResponse list;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(server.models().ListModels(&context, {}, &list).ok());
  }
  ASSERT_EQ(list.models_size(), 2);
  EXPECT_EQ(list.models(0).name(), "a");
  v1::GetModelRequest request;
  request.set_name("b");
  v1::GetModelResponse response;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(server.models().GetModel(&context, request, &response).ok());
  }
  EXPECT_EQ(response.model().name(), "b");
  EXPECT_EQ(response.model().digest(), "d1");
  EXPECT_EQ(response.model().context_length(), kTestContextLength);
  EXPECT_EQ(response.model().vocabulary_size(), engine::fake::kVocabulary);
  EXPECT_EQ(response.model().parameters(), 7);
  EXPECT_EQ(response.model().eos_token_ids(0), engine::fake::kEosId);
  EXPECT_EQ(response.model().kv_capacity_tokens(), 1024 * 16);
  request.set_name("c");
  grpc::ClientContext context;
  EXPECT_EQ(server.models().GetModel(&context, request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace structattn::rpc
