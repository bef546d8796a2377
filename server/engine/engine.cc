// Implements engine.h: the mailbox in front of the engine thread. Everything that serving needs
// lives in the ServingLoop, which only that thread touches.
#include "server/engine/engine.h"

#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "kernels/check.h"
#include "server/engine/field_error.h"
#include "server/engine/serving_loop.h"
#include "server/engine/task/fusion_task.h"
#include "server/engine/task/generate_task.h"
#include "server/engine/task/score_task.h"
#include "server/model/status_macros.h"

namespace structattn::engine {

class Engine::Impl {
 public:
  Impl(Model* model, const KvShape& kv, const EngineOptions& options)
      : model_(model),
        kv_(kv),
        max_queued_requests_(options.max_queued_requests),
        on_device_lost_(options.on_device_lost),
        loop_(model->decoder.get(),
              {.kv_blocks = kv.blocks,
               .limits = {.max_step_tokens = options.max_step_tokens,
                          .max_running_sequences = options.max_running_sequences}}),
        thread_([this] { Run(); }) {}

  ~Impl() {
    {
      const absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    wake_.Signal();
    thread_.join();
  }

  // Queues the task that make_task(ticket, model) gives.
  template <typename MakeTask>
  absl::StatusOr<Ticket> Submit(const MakeTask& make_task);
  int64_t vocabulary_size() const { return model_->decoder->vocabulary_size(); }
  void Cancel(Ticket ticket);
  bool Drain(absl::Time deadline);
  int64_t capacity_tokens() const { return kv_.capacity_tokens(); }

 private:
  // What arrived since the engine thread last looked.
  struct Mail {
    std::vector<std::unique_ptr<Task>> tasks;
    std::vector<Ticket> cancels;
    bool stop = false;
  };

  absl::Status CheckOpen() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsDrained() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return inbox_.empty() && tasks_ == 0;
  }
  void Run();
  void TakeMail(Mail* mail);
  void PublishCounts();

  Model* const model_;
  const KvShape kv_;
  const int32_t max_queued_requests_;
  std::function<void()> on_device_lost_;  // The engine thread's own; empty once called.

  absl::Mutex mutex_;
  absl::CondVar wake_;     // There is mail.
  absl::CondVar drained_;  // Nothing accepted is unfinished.
  std::vector<std::unique_ptr<Task>> inbox_ ABSL_GUARDED_BY(mutex_);
  std::vector<Ticket> cancels_ ABSL_GUARDED_BY(mutex_);
  Ticket next_ticket_ ABSL_GUARDED_BY(mutex_) = 1;
  // The loop's tasks as last published: those of which nothing is computed yet, and all.
  int32_t queued_ ABSL_GUARDED_BY(mutex_) = 0;
  int32_t tasks_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  ServingLoop loop_;    // The engine thread's own, not guarded.
  std::thread thread_;  // Last: it uses everything above.
};

absl::Status Engine::Impl::CheckOpen() const {
  if (draining_ || stopping_) {
    return absl::UnavailableError("the model is being drained: no new requests");
  }
  const int64_t queued = queued_ + static_cast<int64_t>(inbox_.size());
  if (queued < max_queued_requests_) return absl::OkStatus();
  return FieldError(
      absl::StatusCode::kResourceExhausted, {"", "QUEUE_FULL"},
      absl::StrCat(queued, " requests are queued: at most ", max_queued_requests_, " may wait"));
}

template <typename MakeTask>
absl::StatusOr<Engine::Ticket> Engine::Impl::Submit(const MakeTask& make_task) {
  Ticket ticket;
  {
    const absl::MutexLock lock(&mutex_);
    STRUCTATTN_RETURN_IF_ERROR(CheckOpen());
    ticket = next_ticket_++;
  }
  // The costly part, outside the lock and off the engine thread.
  const Tiling tiling = model_->decoder->tiling();
  std::unique_ptr<Task> task = make_task(
      ticket, SequenceModel{.tokenizer = model_->tokenizer.get(),
                            .eos_token_ids = model_->config.eos_token_ids,
                            .context_length = model_->config.context_length,
                            .block_size = kv_.block_size,
                            .decode_tiles = tiling.split_kv_branches > 0,
                            .has_window = tiling.window != kNoWindow,
                            .dynamic_rope_length = model_->decoder->dynamic_rope_length()});
  STRUCTATTN_RETURN_IF_ERROR(task->CheckFits(kv_.blocks));
  {
    const absl::MutexLock lock(&mutex_);
    STRUCTATTN_RETURN_IF_ERROR(CheckOpen());
    inbox_.push_back(std::move(task));
  }
  wake_.Signal();
  return ticket;
}

void Engine::Impl::Cancel(Ticket ticket) {
  {
    const absl::MutexLock lock(&mutex_);
    cancels_.push_back(ticket);
  }
  wake_.Signal();
}

bool Engine::Impl::Drain(absl::Time deadline) {
  const absl::MutexLock lock(&mutex_);
  draining_ = true;
  while (!IsDrained()) {
    if (drained_.WaitWithDeadline(&mutex_, deadline)) return IsDrained();
  }
  return true;
}

// Publishes what the loop holds to Submit and Drain.
void Engine::Impl::PublishCounts() {
  const LoopCounts counts = loop_.counts();
  const absl::MutexLock lock(&mutex_);
  queued_ = counts.queued;
  tasks_ = counts.tasks;
  if (inbox_.empty() && loop_.idle()) drained_.SignalAll();
}

// Waits until there is something to do.
void Engine::Impl::TakeMail(Mail* mail) {
  mail->tasks.clear();
  mail->cancels.clear();
  const absl::MutexLock lock(&mutex_);
  while (!stopping_ && inbox_.empty() && cancels_.empty() && loop_.idle()) wake_.Wait(&mutex_);
  std::swap(mail->tasks, inbox_);
  std::swap(mail->cancels, cancels_);
  mail->stop = stopping_;
  queued_ += static_cast<int32_t>(mail->tasks.size());
  tasks_ += static_cast<int32_t>(mail->tasks.size());
}

void Engine::Impl::Run() {
  Mail mail;
  while (true) {
    TakeMail(&mail);
    for (std::unique_ptr<Task>& task : mail.tasks) loop_.Accept(std::move(task));
    for (const Ticket ticket : mail.cancels) loop_.Cancel(ticket);
    if (mail.stop) break;
    loop_.Plan();
    PublishCounts();  // A task that starts in this step leaves the queue before it, not after it.
    loop_.Execute();
    PublishCounts();
    if (loop_.decoder_lost() && on_device_lost_) std::exchange(on_device_lost_, nullptr)();
  }
  loop_.CancelAll();
}

Engine::Engine(Model* model, const KvShape& kv, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(model, kv, options)) {}

Engine::~Engine() = default;

absl::StatusOr<Engine::Ticket> Engine::Submit(GenerateRequest request,
                                              std::shared_ptr<EventSink> sink) {
  for (const auto& [id, bias] : request.sampling.logit_bias) {
    STRUCTATTN_CHECK(id >= 0 && id < impl_->vocabulary_size());
  }
  return impl_->Submit([&](Ticket ticket, const SequenceModel& model) -> std::unique_ptr<Task> {
    if (request.fusion.has_value()) {
      return std::make_unique<FusionTask>(ticket, std::move(request), std::move(sink), model);
    }
    return std::make_unique<GenerateTask>(ticket, std::move(request), std::move(sink), model);
  });
}

absl::StatusOr<Engine::Ticket> Engine::Submit(ScoreRequest request,
                                              std::shared_ptr<ScoreSink> sink) {
  return impl_->Submit([&](Ticket ticket, const SequenceModel& model) {
    return std::make_unique<ScoreTask>(ticket, std::move(request), std::move(sink), model);
  });
}

void Engine::Cancel(Ticket ticket) { impl_->Cancel(ticket); }

bool Engine::Drain(absl::Time deadline) { return impl_->Drain(deadline); }

int64_t Engine::kv_capacity_tokens() const { return impl_->capacity_tokens(); }

}  // namespace structattn::engine
