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

namespace structattn::engine {

ServingLoop::ServingLoop(Decoder* decoder, const ServingLoopOptions& options)
    : decoder_(decoder), options_(options), pool_(options.kv_blocks), scheduler_(options.limits) {
  STRUCTATTN_CHECK(options.limits.max_step_tokens > 0);
  STRUCTATTN_CHECK(options.limits.max_running_sequences > 0);
}

LoopCounts ServingLoop::counts() const {
  const auto is_queued = [](const auto& entry) { return !entry.second->started(); };
  return {.tasks = static_cast<int32_t>(tasks_.size()),
          .queued = static_cast<int32_t>(std::ranges::count_if(tasks_, is_queued)),
          .running = static_cast<int32_t>(running_.size()),
          .waiting = static_cast<int32_t>(waiting_.size()),
          .paused = static_cast<int32_t>(paused_.size()),
          .available_blocks = pool_.available()};
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
  drop_from(&paused_);
  std::erase_if(tasks_, has_ended);
}

void ServingLoop::Execute() {
  if (chunks_.empty()) return;
  if (const absl::Status status = RunBatch(); status.ok()) {
    Advance();
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
  const auto collect = [](const auto& sequences, std::vector<SequenceBlocks*>* blocks) {
    blocks->clear();
    for (const auto& sequence : sequences) blocks->push_back(&sequence->blocks());
  };
  collect(running_, &running_blocks_);
  collect(waiting_, &waiting_blocks_);
  collect(paused_, &paused_blocks_);
  plan_ = &scheduler_.PlanStep({.running = running_blocks_,
                                .waiting = waiting_blocks_,
                                .paused = paused_blocks_,
                                .pool = &pool_});
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
  return std::max<int64_t>(options_.max_logits / decoder_->vocabulary_size(), 1);
}

std::span<float> ServingLoop::Room(size_t rows) {
  const size_t size = rows * decoder_->vocabulary_size();
  if (logits_.size() < size) logits_.resize(size);
  return std::span(logits_).first(size);
}

// Runs the scheduled chunks and lets their tasks read the logits that they want, a slice at a time.
absl::Status ServingLoop::RunBatch() {
  try {
    BuildBatch(chunks_, decoder_->tiling(), &batch_);
    logit_rows_ = batch_.logit_rows;
    const size_t vocabulary = decoder_->vocabulary_size();
    size_t slice_begin = 0;
    size_t slice_end = std::min<size_t>(logit_rows_.size(), RowsAtOnce());
    batch_.logit_rows.resize(slice_end);
    decoder_->Forward(batch_, Room(slice_end));
    size_t row = 0;
    for (const SequenceChunk& chunk : chunks_) {
      chunk.sequence->blocks().Commit(&pool_);
      const std::span<const int32_t> logit_tokens = LogitTokens(chunk);
      for (const int32_t token : logit_tokens) {
        if (row == slice_end) {
          slice_begin = row;
          slice_end = std::min<size_t>(logit_rows_.size(), row + RowsAtOnce());
          decoder_->Logits(std::span(logit_rows_).subspan(row, slice_end - row),
                           Room(slice_end - row));
        }
        Read(chunk, token,
             std::span(logits_).subspan((row - slice_begin) * vocabulary, vocabulary));
        ++row;
      }
      chunk.sequence->blocks().MarkRead(logit_tokens.size());
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

// Lets every sequence whose tokens are all computed go on, fork, pause or end, then those that are
// paused no more. Who finds no place, or has lost its blocks, waits in front.
void ServingLoop::Advance() {
  Sequences before = std::exchange(running_, {});
  Sequences paused = std::exchange(paused_, {});
  int64_t places = options_.limits.max_running_sequences - static_cast<int64_t>(before.size());
  Sequences late;
  for (std::unique_ptr<Sequence>& sequence : before) {
    ++places;  // Its own.
    const bool is_computed = sequence->blocks().left() == 0;
    AdvanceOne(std::move(sequence), is_computed, &places, &late);
  }
  for (std::unique_ptr<Sequence>& sequence : paused) {
    AdvanceOne(std::move(sequence), /*is_computed=*/true, &places, &late);
  }
  for (; !late.empty(); late.pop_back()) {
    late.back()->blocks().Release(&pool_);
    waiting_.push_front(std::move(late.back()));
  }
}

// What is paused was computed once, whatever became of its blocks. Forks run right behind what they
// come from.
void ServingLoop::AdvanceOne(std::unique_ptr<Sequence> sequence, bool is_computed, int64_t* places,
                             Sequences* late) {
  Task& task = sequence->task();
  Sequences family;
  if (is_computed && !task.ended() && !task.IsPaused(*sequence)) {
    task.Advance(sequence.get(), &pool_, &family);
  }
  family.insert(family.begin(), std::move(sequence));
  for (std::unique_ptr<Sequence>& member : family) {
    SequenceBlocks& blocks = member->blocks();
    if (!task.ended() && task.IsPaused(*member)) {
      paused_.push_back(std::move(member));
    } else if (task.ended() || blocks.left() == 0) {
      blocks.Release(&pool_);
    } else if (*places > 0 && !blocks.table().empty()) {
      --*places;
      running_.push_back(std::move(member));
    } else {
      late->push_back(std::move(member));
    }
  }
}

}  // namespace structattn::engine
