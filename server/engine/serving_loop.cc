// Implements serving_loop.h. This is the one place where exceptions of the decoder end.
#include "server/engine/serving_loop.h"

#include <algorithm>
#include <exception>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "kernels/check.h"

namespace structattn {

ServingLoop::ServingLoop(Decoder* decoder, KvCache kv, const SchedulerLimits& limits)
    : decoder_(decoder),
      kv_(std::move(kv)),
      limits_(limits),
      pool_(kv_.blocks),
      scheduler_(limits) {
  STRUCTATTN_CHECK(limits.max_step_tokens > 0 && limits.max_running_sequences > 0);
}

int32_t ServingLoop::queued() const {
  return static_cast<int32_t>(
      std::ranges::count_if(tasks_, [](const auto& entry) { return !entry.second->started(); }));
}

void ServingLoop::Accept(std::unique_ptr<Task> task) {
  for (std::unique_ptr<Sequence>& sequence : task->Begin()) {
    waiting_.push_back(std::move(sequence));
  }
  if (!task->ended()) tasks_.emplace(task->ticket(), std::move(task));
}

void ServingLoop::Cancel(uint64_t ticket) {
  StopWhere(FinishReason::kCancelled,
            [ticket](const Task& task) { return task.ticket() == ticket; });
}

void ServingLoop::CancelAll() {
  StopWhere(FinishReason::kCancelled, [](const Task&) { return true; });
}

template <typename Condition>
void ServingLoop::StopWhere(FinishReason reason, Condition condition) {
  for (const auto& [ticket, task] : tasks_) {
    if (condition(*task)) task->Stop(reason);
  }
  DropEnded();
}

// Lets go of tasks that have ended, with all that their sequences hold.
void ServingLoop::DropEnded() {
  const auto has_ended = [](const auto& entry) { return entry.second->ended(); };
  if (std::ranges::none_of(tasks_, has_ended)) return;
  const auto drop_from = [this](auto* sequences) {
    std::erase_if(*sequences, [this](const std::unique_ptr<Sequence>& sequence) {
      if (!sequence->task().ended()) return false;
      sequence->blocks().Release(&pool_);
      return true;
    });
  };
  drop_from(&running_);
  drop_from(&waiting_);
  std::erase_if(tasks_, has_ended);
}

void ServingLoop::Execute() {
  if (chunks_.empty()) return;
  if (const absl::Status status = RunBatch(); status.ok()) {
    GoOn();
  } else {
    decoder_lost_ = !decoder_->usable();
    for (const SequenceChunk& chunk : chunks_) {
      if (Task& task = chunk.sequence->task(); !task.ended()) task.Fail(status);
    }
  }
  chunks_.clear();
  DropEnded();
}

void ServingLoop::Plan() {
  StopWhere(FinishReason::kDeadline,
            [now = absl::Now()](const Task& task) { return task.deadline() <= now; });
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
    running_.back()->task().Start(absl::Now());
  }
}

int64_t ServingLoop::RowsAtOnce() const {
  return std::max<int64_t>(most_logits_ / decoder_->vocabulary_size(), 1);
}

std::span<float> ServingLoop::Room(size_t rows) {
  const size_t size = rows * decoder_->vocabulary_size();
  if (logits_.size() < size) logits_.resize(size);
  return std::span(logits_).first(size);
}

// Runs the planned chunks and lets their tasks read the logits that they want, a part at a time.
absl::Status ServingLoop::RunBatch() {
  try {
    BuildBatch(chunks_, decoder_->tiling(), &batch_);
    logit_rows_ = batch_.logit_rows;
    const size_t vocabulary = decoder_->vocabulary_size();
    size_t part_begin = 0;
    size_t part_end = std::min<size_t>(logit_rows_.size(), RowsAtOnce());
    batch_.logit_rows.resize(part_end);
    decoder_->Forward(batch_, kv_.layers, Room(part_end));
    size_t row = 0;
    for (const SequenceChunk& chunk : chunks_) {
      chunk.sequence->blocks().Commit(&pool_);
      const std::span<const int32_t> wanted = WantedTokens(chunk);
      for (const int32_t token : wanted) {
        if (row == part_end) {
          part_begin = row;
          part_end = std::min<size_t>(logit_rows_.size(), row + RowsAtOnce());
          decoder_->Logits(std::span(logit_rows_).subspan(row, part_end - row),
                           Room(part_end - row));
        }
        Read(chunk, token, std::span(logits_).subspan((row - part_begin) * vocabulary, vocabulary));
        ++row;
      }
      chunk.sequence->blocks().MarkRead(wanted.size());
    }
  } catch (const std::exception& exception) {
    // LibTorch appends a backtrace after the first line.
    const std::string what = exception.what();
    return absl::InternalError(absl::StrCat("the model failed: ", what.substr(0, what.find('\n'))));
  }
  return absl::OkStatus();
}

void ServingLoop::Read(const SequenceChunk& chunk, int32_t token, std::span<const float> logits) {
  Task& task = chunk.sequence->task();
  if (task.ended()) return;
  const absl::Status status =
      task.Read({.sequence = chunk.sequence, .token = token, .logits = logits}, &sampler_);
  if (!status.ok()) task.Fail(status);
}

// Lets every sequence whose tokens are all computed go on, fork or end. Forks run right behind it,
// or wait in front when as many run as may.
void ServingLoop::GoOn() {
  std::vector<std::unique_ptr<Sequence>> before = std::exchange(running_, {});
  int64_t room = limits_.max_running_sequences - static_cast<int64_t>(before.size());
  Sequences late;
  Sequences forks;
  for (std::unique_ptr<Sequence>& sequence : before) {
    forks.clear();
    if (Task& task = sequence->task(); !task.ended() && sequence->blocks().left() == 0) {
      task.GoOn(sequence.get(), &pool_, &forks);
    }
    if (sequence->blocks().left() > 0) {
      running_.push_back(std::move(sequence));
    } else {
      sequence->blocks().Release(&pool_);
      ++room;
    }
    for (std::unique_ptr<Sequence>& fork : forks) {
      Sequences& target = room-- > 0 ? running_ : late;
      target.push_back(std::move(fork));
    }
  }
  for (; !late.empty(); late.pop_back()) {
    late.back()->blocks().Release(&pool_);
    waiting_.push_front(std::move(late.back()));
  }
}

}  // namespace structattn
