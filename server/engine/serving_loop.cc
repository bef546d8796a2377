// Implements serving_loop.h. This is the one place where exceptions of the decoder end.
#include "server/engine/serving_loop.h"

#include <algorithm>
#include <exception>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "kernels/check.h"

namespace structattn {

ServingLoop::ServingLoop(Decoder* decoder, KvCache kv, const SchedulerLimits& limits)
    : decoder_(decoder), kv_(std::move(kv)), pool_(kv_.blocks), scheduler_(limits) {
  STRUCTATTN_CHECK(limits.max_step_tokens > 0 && limits.max_running_sequences > 0);
}

void ServingLoop::Accept(std::unique_ptr<Sequence> sequence) {
  if (sequence->max_generated_tokens() == 0) {
    sequence->Finish(FinishReason::kLength, absl::Now());
    return;
  }
  STRUCTATTN_CHECK(sequence->MaxBlocks() <= kv_.blocks);
  waiting_.push_back(std::move(sequence));
}

void ServingLoop::Cancel(uint64_t ticket) {
  EndWhere(FinishReason::kCancelled,
           [ticket](const Sequence& sequence) { return sequence.ticket() == ticket; });
}

void ServingLoop::CancelAll() {
  EndWhere(FinishReason::kCancelled, [](const Sequence&) { return true; });
}

template <typename Condition>
void ServingLoop::EndWhere(FinishReason reason, Condition condition) {
  const absl::Time now = absl::Now();
  const auto end_in = [&](auto* sequences) {
    for (std::unique_ptr<Sequence>& sequence : *sequences) {
      if (!condition(*sequence)) continue;
      sequence->blocks().Release(&pool_);
      sequence->Finish(reason, now);
      sequence.reset();
    }
    std::erase(*sequences, nullptr);
  };
  end_in(&running_);
  end_in(&waiting_);
}

void ServingLoop::Execute() {
  if (chunks_.empty()) return;
  if (const absl::Status status = Forward(); status.ok()) {
    SampleAll();
  } else {
    decoder_lost_ = !decoder_->usable();
    FailBatch(status);
  }
  chunks_.clear();
  std::erase(running_, nullptr);
}

void ServingLoop::Plan() {
  EndWhere(FinishReason::kDeadline,
           [now = absl::Now()](const Sequence& sequence) { return sequence.deadline() <= now; });
  if (idle()) return;
  running_blocks_.clear();
  for (const auto& sequence : running_) running_blocks_.push_back(&sequence->blocks());
  waiting_blocks_.clear();
  for (const auto& sequence : waiting_) waiting_blocks_.push_back(&sequence->blocks());
  plan_ = &scheduler_.PlanStep(
      {.running = running_blocks_, .waiting = waiting_blocks_, .pool = &pool_});
  Preempt(plan_->preempted);
  Admit(plan_->admitted);
  for (const Chunk& chunk : plan_->chunks) {
    chunks_.push_back(
        {.sequence = running_[chunk.sequence].get(),
         .ranges = std::span(plan_->ranges)
                       .subspan(chunk.range_begin, chunk.range_end - chunk.range_begin)});
  }
}

void ServingLoop::Preempt(int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    waiting_.push_front(std::move(running_.back()));
    running_.pop_back();
  }
}

void ServingLoop::Admit(int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
    running_.back()->Start(absl::Now());
  }
}

absl::Status ServingLoop::Forward() {
  try {
    BuildBatch(chunks_, decoder_->tiling(), &batch_);
    const size_t size = batch_.logit_rows.size() * decoder_->vocabulary_size();
    if (logits_.size() < size) logits_.resize(size);
    decoder_->Forward(batch_, kv_.layers, std::span(logits_).first(size));
  } catch (const std::exception& exception) {
    // LibTorch appends a backtrace after the first line.
    const std::string what = exception.what();
    return absl::InternalError(absl::StrCat("the model failed: ", what.substr(0, what.find('\n'))));
  }
  return absl::OkStatus();
}

void ServingLoop::SampleAll() {
  const size_t vocabulary = decoder_->vocabulary_size();
  size_t row = 0;
  for (size_t i = 0; i < chunks_.size(); ++i) {
    std::unique_ptr<Sequence>& sequence = running_[plan_->chunks[i].sequence];
    sequence->blocks().Commit(&pool_);
    if (!ReachesEnd(chunks_[i])) continue;
    SampleNext(&sequence, std::span(logits_).subspan(row * vocabulary, vocabulary));
    ++row;
  }
}

// Resets the sequence when it has ended.
void ServingLoop::SampleNext(std::unique_ptr<Sequence>* sequence, std::span<const float> logits) {
  absl::StatusOr<SampledToken> token = sampler_.Sample((*sequence)->NextSample(logits));
  if (!token.ok()) {
    (*sequence)->blocks().Release(&pool_);
    (*sequence)->Fail(token.status());
    sequence->reset();
    return;
  }
  const absl::Time now = absl::Now();
  const std::optional<FinishReason> finish = (*sequence)->Accept(*std::move(token), now);
  if (!finish.has_value()) return;
  (*sequence)->blocks().Release(&pool_);
  (*sequence)->Finish(*finish, now);
  sequence->reset();
}

void ServingLoop::FailBatch(const absl::Status& status) {
  for (const Chunk& chunk : plan_->chunks) {
    std::unique_ptr<Sequence>& sequence = running_[chunk.sequence];
    sequence->blocks().Release(&pool_);
    sequence->Fail(status);
    sequence.reset();
  }
}

}  // namespace structattn
