// The serving state of one engine and its step: plan, batch, forward, sample, tell the clients.
// Owned and called by the engine's one thread (server/engine/engine); starts no thread, takes no
// lock, never waits.
#ifndef STRUCTATTN_SERVER_ENGINE_SERVING_LOOP_H_
#define STRUCTATTN_SERVER_ENGINE_SERVING_LOOP_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "server/engine/batch_builder.h"
#include "server/engine/block_pool.h"
#include "server/engine/kv_cache.h"
#include "server/engine/sampler.h"
#include "server/engine/scheduler.h"
#include "server/engine/sequence.h"
#include "server/model/decoder.h"

namespace structattn {

class ServingLoop {
 public:
  // `decoder` outlives the loop.
  ServingLoop(Decoder* decoder, KvCache kv, const SchedulerLimits& limits);

  // Takes a sequence into the queue; its MaxBlocks must fit into an empty pool. One that may not
  // generate anything finishes at once.
  void Accept(std::unique_ptr<Sequence> sequence);
  // Ends a sequence that runs or waits with kCancelled; not between the halves of a step. Unknown
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

  bool idle() const { return running_.empty() && waiting_.empty(); }
  int32_t running() const { return static_cast<int32_t>(running_.size()); }
  int32_t waiting() const { return static_cast<int32_t>(waiting_.size()); }
  // Blocks that no sequence holds.
  int32_t available_blocks() const { return pool_.available(); }

 private:
  template <typename Condition>
  void EndWhere(FinishReason reason, Condition condition);
  void Preempt(int32_t count);
  void Admit(int32_t count);
  absl::Status Forward();
  void SampleAll();
  void SampleNext(std::unique_ptr<Sequence>* sequence, std::span<const float> logits);
  void FailBatch(const absl::Status& status);

  Decoder* const decoder_;
  const KvCache kv_;
  BlockPool pool_;
  Scheduler scheduler_;
  Sampler sampler_;
  bool decoder_lost_ = false;
  std::vector<std::unique_ptr<Sequence>> running_;  // In order of admission.
  std::deque<std::unique_ptr<Sequence>> waiting_;   // In order of arrival, the preempted first.

  // Workspace of one step, reused.
  std::vector<SequenceBlocks*> running_blocks_;
  std::vector<SequenceBlocks*> waiting_blocks_;
  const StepPlan* plan_ = nullptr;
  std::vector<SequenceChunk> chunks_;  // Of plan_; empty when nothing is planned.
  StepBatch batch_;
  std::vector<float> logits_;  // [logit rows, vocabulary]
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_ENGINE_SERVING_LOOP_H_
