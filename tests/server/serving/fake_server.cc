// Implements fake_server.h.
#include "tests/server/serving/fake_server.h"

#include <span>
#include <stop_token>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "kernels/check.h"
#include "tests/server/engine/fakes.h"

namespace structattn::serving {
namespace {

constexpr int64_t kContextLength = 4096;
constexpr size_t kCostlyBytes = size_t{64} << 10;

// One token per byte, all in range and harmless to the fake decoder.
class HeldTokenizer final : public engine::fake::FakeTokenizer {
 public:
  explicit HeldTokenizer(const std::atomic<bool>* holds) : holds_(holds) {}

  absl::StatusOr<std::vector<Token>> Encode(std::span<const TextSegment> segments,
                                            const std::stop_token& stop) const override {
    std::vector<Token> tokens;
    for (size_t i = 0; i < segments.size(); ++i) {
      while (*holds_ && segments[i].text.size() > kCostlyBytes) {
        if (stop.stop_requested()) return absl::CancelledError("stopped");
        absl::SleepFor(absl::Milliseconds(1));
      }
      for (const char c : segments[i].text) {
        tokens.push_back(
            {static_cast<unsigned char>(c) % engine::fake::kNanId, static_cast<int32_t>(i)});
      }
    }
    return tokens;
  }

 private:
  const std::atomic<bool>* const holds_;
};

}  // namespace

FakeServer::FakeServer(const FakeServerOptions& options)
    : options_(options),
      registry_([this](const engine::ModelSource& source) { return Load(source); }),
      door_(&registry_, {}) {
  STRUCTATTN_CHECK(registry_.Load({.name = "m", .path = "good"}).ok());
  if (options.open) door_.Open();
}

FakeServer::~FakeServer() {
  ReleaseSteps();
  door_.Close();
  door_.CancelCalls();
  registry_.Drain(absl::Now() + absl::Seconds(60));
}

void FakeServer::HoldSteps() {
  absl::MutexLock lock(&mutex_);
  holds_steps_ = true;
}

void FakeServer::ReleaseSteps() {
  absl::MutexLock lock(&mutex_);
  holds_steps_ = false;
  changed_.SignalAll();
}

void FakeServer::AwaitStep() {
  absl::MutexLock lock(&mutex_);
  while (!step_is_held_) changed_.Wait(&mutex_);
}

void FakeServer::RunStep() {
  absl::MutexLock lock(&mutex_);
  while (holds_steps_) {
    step_is_held_ = true;
    changed_.SignalAll();
    changed_.Wait(&mutex_);
  }
  step_is_held_ = false;
}

absl::StatusOr<std::unique_ptr<engine::ServedModel>> FakeServer::Load(
    const engine::ModelSource& source) {
  engine::fake::FakeModel fake(kContextLength);
  fake.model->tokenizer = std::make_unique<HeldTokenizer>(&holds_tokenizing_);
  fake.decoder->on_forward = [this](const StepBatch&) { RunStep(); };
  const KvShape kv = fake.decoder->MakeKv(1024);
  auto served = std::make_unique<engine::ServedModel>();
  served->name = source.name;
  served->model = std::move(fake.model);
  engine::EngineOptions options;
  options.max_queued_requests = options_.max_queued_requests;
  options.max_running_sequences = options_.max_running_sequences;
  served->engine = std::make_unique<engine::Engine>(served->model.get(), kv, options);
  return served;
}

}  // namespace structattn::serving
