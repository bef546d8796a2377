// The registry: names, leases, unloading while requests run, draining, and the calls of the
// health hook.
#include "server/engine/model_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "server/engine/field_error.h"
#include "tests/server/engine/fakes.h"

namespace structattn::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

GenerateRequest LongRequest(int max_tokens) {
  std::mt19937 random(1);
  GenerateRequest request{
      .request_id = "", .prompt = fake::RandomPrompt(&random, 10), .sampling = {}, .stopping = {}};
  request.sampling.logit_bias = {{fake::kThrowId, -1000.0f}, {fake::kNanId, -1000.0f}};
  request.stopping.max_tokens = max_tokens;
  request.stopping.ignore_eos = true;
  return request;
}

absl::StatusOr<std::unique_ptr<ServedModel>> LoadFake(const ModelSource& source) {
  if (source.path == "bad") return absl::FailedPreconditionError("bad files");
  auto served = std::make_unique<ServedModel>();
  served->name = source.name;
  fake::FakeModel fake;
  const KvShape kv = fake.decoder->MakeKv(64);
  served->model = std::move(fake.model);
  served->engine = std::make_unique<Engine>(served->model.get(), kv, EngineOptions());
  return served;
}

TEST(ModelRegistryTest, FindsByNameAndTheOnlyModelByNone) {
  ModelRegistry registry(LoadFake);
  EXPECT_THAT(std::string(registry.Find("").status().message()), HasSubstr("no model is loaded"));
  ASSERT_TRUE(registry.Load({"b", "x"}).ok());
  EXPECT_EQ((*registry.Find(""))->name, "b");
  ASSERT_TRUE(registry.Load({"a", "x"}).ok());
  EXPECT_EQ((*registry.Find("a"))->name, "a");
  for (const char* name : {"", "c"}) {
    const absl::Status status = registry.Find(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(GetFieldErrorDetail(status)->field, "model");
    EXPECT_THAT(std::string(status.message()), HasSubstr("loaded are \"a\", \"b\""));
  }
  std::vector<std::string> names;
  for (const auto& model : registry.List()) names.push_back(model->name);
  EXPECT_THAT(names, ElementsAre("a", "b"));
}

TEST(ModelRegistryTest, RefusesATakenNameAndKeepsNothingOfAFailedLoad) {
  ModelRegistry registry(LoadFake);
  ASSERT_TRUE(registry.Load({"a", "x"}).ok());
  EXPECT_EQ(registry.Load({"a", "x"}).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(registry.Load({"b", "bad"}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(registry.Find("b").status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(registry.Load({"b", "x"}).ok());
}

TEST(ModelRegistryTest, UnloadWaitsForRequestsAndLeases) {
  ModelRegistry registry(LoadFake);
  ASSERT_TRUE(registry.Load({"a", "x"}).ok());
  EXPECT_EQ(registry.Unload("b").code(), absl::StatusCode::kNotFound);
  auto lease = *registry.Find("a");
  const auto sink = std::make_shared<fake::RecordingSink>();
  ASSERT_TRUE(lease->engine->Submit(LongRequest(300), sink).ok());

  std::atomic<bool> unloaded = false;
  std::thread unloader([&] {
    EXPECT_TRUE(registry.Unload("a").ok());
    unloaded = true;
  });
  sink->WaitUntilDone();
  EXPECT_EQ(sink->token_ids.size(), 300u) << "the running request was not cut";
  while (registry.Find("a").ok()) std::this_thread::yield();
  EXPECT_FALSE(unloaded) << "the lease is still out";
  EXPECT_EQ(lease->engine->Submit(LongRequest(3), sink).status().code(),
            absl::StatusCode::kUnavailable);
  lease.reset();
  unloader.join();
  EXPECT_TRUE(registry.Load({"a", "x"}).ok());
}

// The engine's thread may drop the last reference to a sink that holds a lease.
TEST(ModelRegistryTest, ASinkMayHoldALease) {
  struct LeasingSink : fake::RecordingSink {
    std::shared_ptr<ServedModel> lease;
  };
  ModelRegistry registry(LoadFake);
  ASSERT_TRUE(registry.Load({"a", "x"}).ok());
  auto lease = *registry.Find("a");
  auto sink = std::make_shared<LeasingSink>();
  sink->lease = lease;
  ASSERT_TRUE(lease->engine->Submit(LongRequest(200), std::move(sink)).ok());
  lease.reset();
  EXPECT_TRUE(registry.Unload("a").ok());
}

TEST(ModelRegistryTest, DrainEndsAllModels) {
  ModelRegistry registry(LoadFake);
  ASSERT_TRUE(registry.Load({"a", "x"}).ok());
  ASSERT_TRUE(registry.Load({"b", "x"}).ok());
  const auto sink = std::make_shared<fake::RecordingSink>();
  ASSERT_TRUE((*registry.Find("b"))->engine->Submit(LongRequest(200), sink).ok());
  EXPECT_TRUE(registry.Drain(absl::InfiniteFuture()));
  EXPECT_EQ(sink->token_ids.size(), 200u);
  EXPECT_EQ((*registry.Find("a"))->engine->Submit(LongRequest(3), sink).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(registry.Load({"c", "x"}).code(), absl::StatusCode::kUnavailable);
}

TEST(ModelRegistryTest, TheHealthHookHearsOfEveryChange) {
  ModelRegistry registry(LoadFake);
  std::vector<std::string> heard;
  ASSERT_TRUE(registry.Load({"a", "x"}).ok());
  registry.SetHealthHook([&heard](const std::string& name, bool serving) {
    heard.push_back(name + (serving ? "+" : "-"));
  });
  EXPECT_FALSE(registry.Load({"bad", "bad"}).ok());
  ASSERT_TRUE(registry.Load({"b", "x"}).ok());
  ASSERT_TRUE(registry.Unload("a").ok());
  registry.Drain(absl::InfiniteFuture());
  EXPECT_THAT(heard, ElementsAre("a+", "b+", "a-", "b-"));
}

TEST(ModelRegistryTest, LoadsFindsAndUnloadsFromManyThreads) {
  ModelRegistry registry(LoadFake);
  std::vector<std::thread> threads;
  for (uint32_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&registry, thread] {
      std::mt19937 random(thread);
      for (int i = 0; i < 60; ++i) {
        const std::string name(1, static_cast<char>('a' + random() % 3));
        switch (random() % 3) {
          case 0:
            registry.Load({name, "x"}).IgnoreError();
            break;
          case 1:
            registry.Unload(name).IgnoreError();
            break;
          default:
            if (const auto lease = registry.Find(name); lease.ok()) {
              const auto sink = std::make_shared<fake::RecordingSink>();
              if ((*lease)->engine->Submit(LongRequest(5), sink).ok()) sink->WaitUntilDone();
            }
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace structattn::engine
