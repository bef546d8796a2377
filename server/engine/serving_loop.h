// The serving state of one engine and its step: plan, batch, forward, read, advance. Belongs to one
// thread: starts none, takes no lock, never waits.
#ifndef STRUCTATTN_SERVER_ENGINE_SERVING_LOOP_H_
#define STRUCTATTN_SERVER_ENGINE_SERVING_LOOP_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "server/engine/batch_builder.h"
#include "server/engine/cache/block_pool.h"
#include "server/engine/sampling/sampler.h"
#include "server/engine/scheduler.h"
#include "server/engine/task/sequence.h"
#include "server/engine/task/task.h"
#include "server/model/decoder.h"

namespace structattn::engine {

struct ServingLoopOptions {
  int32_t kv_blocks = 0;  // The first so many blocks of the decoder's KV memory are used.
  SchedulerLimits limits = {};
  // Logits kept in memory at once, at least those of one row; what more a step wants is computed
  // and read slice by slice. 64 MiB: 341 rows of 49,152, 110 of 151,936.
  int64_t max_logits = int64_t{1} << 24;
};

struct LoopCounts {
  int32_t tasks = 0;
  int32_t queued = 0;  // Tasks of which nothing was computed yet.
  // Sequences, of which a task may have many.
  int32_t running = 0;
  int32_t waiting = 0;
  int32_t paused = 0;
  int32_t available_blocks = 0;  // Held by no sequence.
};

class ServingLoop {
 public:
  // `decoder` outlives the loop and has allocated its KV memory.
  ServingLoop(Decoder* decoder, const ServingLoopOptions& options);

  // Takes a task into the queue; its CheckFits was asked. One with nothing to compute ends at once.
  void Accept(std::unique_ptr<Task> task);
  // Ends a task that runs or waits with kCancelled; not between the halves of a step. Unknown
  // tickets have no effect.
  void Cancel(uint64_t ticket);
  void CancelAll();

  // A step in two halves. Plan ends what is past its deadline, decides the next batch, puts what
  // is preempted back into the queue and starts the sequences that are admitted; Execute runs that
  // batch. No effect when idle.
  void Plan();
  void Execute();

  // The decoder failed in a way that no later step can survive.
  bool decoder_lost() const { return decoder_lost_; }

  bool idle() const { return tasks_.empty(); }
  LoopCounts counts() const;

 private:
  template <typename Condition>
  void StopWhere(FinishReason reason, Condition condition);
  void DropEnded();
  void Preempt(int32_t count);
  void Admit(int32_t count);
  absl::Status RunBatch();
  int64_t RowsAtOnce() const;
  std::span<float> Room(size_t rows);
  void Read(const SequenceChunk& chunk, int32_t token, std::span<const float> logits);
  void Advance();
  void AdvanceOne(std::unique_ptr<Sequence> sequence, bool is_computed, int64_t* places,
                  Sequences* late);

  Decoder* const decoder_;
  const ServingLoopOptions options_;
  BlockPool pool_;
  Scheduler scheduler_;
  Sampler sampler_;
  bool decoder_lost_ = false;
  std::map<uint64_t, std::unique_ptr<Task>> tasks_;  // By ticket; none has ended.
  std::vector<std::unique_ptr<Sequence>> running_;   // In order of admission.
  std::deque<std::unique_ptr<Sequence>> waiting_;    // In order of arrival, the preempted first.
  std::vector<std::unique_ptr<Sequence>> paused_;  // Until other sequences of their tasks are done.

  // Workspace of one step, reused.
  std::vector<SequenceBlocks*> running_blocks_;
  std::vector<SequenceBlocks*> waiting_blocks_;
  std::vector<SequenceBlocks*> paused_blocks_;
  const StepPlan* plan_ = nullptr;
  std::vector<SequenceChunk> chunks_;  // What plan_ holds; empty when nothing is scheduled.
  StepBatch batch_;
  std::vector<int32_t> logit_rows_;  // All of the batch.
  std::vector<float> logits_;        // [RowsAtOnce() at most, vocabulary]
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_SERVING_LOOP_H_
