// One request while it is served: what its sequences are, what is read from their logits, how they
// advance, and what its client is sent. The engine thread owns and drives it. Holds no KV memory
// and knows nothing of other requests.
#ifndef STRUCTATTN_SERVER_ENGINE_TASK_TASK_H_
#define STRUCTATTN_SERVER_ENGINE_TASK_TASK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/engine/cache/block_pool.h"
#include "server/engine/sampling/sampler.h"
#include "server/engine/sampling/sampling_params.h"
#include "server/engine/task/sequence.h"

namespace structattn::engine {

using Sequences = std::vector<std::unique_ptr<Sequence>>;

// The logits after one token of a sequence.
struct LogitsRow {
  const Sequence* sequence;
  int32_t token;                  // Its index in the sequence.
  std::span<const float> logits;  // [vocabulary]
};

class Task {
 public:
  struct Times {
    absl::Time arrival;
    absl::Time deadline;
  };

  // `ticket` names the task among all of its engine.
  Task(uint64_t ticket, const Times& times) : ticket_(ticket), times_(times) {}
  virtual ~Task() = default;

  uint64_t ticket() const { return ticket_; }
  absl::Time deadline() const { return times_.deadline; }
  bool started() const { return started_.has_value(); }
  // The sink has got the end; nothing of the task may be computed any more.
  bool ended() const { return ended_; }

  // Whether each of its sequences, alone, fits into so many blocks.
  virtual absl::Status CheckFits(int32_t kv_blocks) const = 0;

  // The prompts to compute, once. None when there is nothing to compute: then the task has ended.
  virtual Sequences Begin() = 0;

  // Work begins, for the first time or again: the first time ends the queue time.
  void Start(absl::Time now) { started_ = started_.value_or(now); }

  // Takes in the logits of a logit token; at an error Fail follows.
  virtual absl::Status Read(const LogitsRow& row, Sampler* sampler) = 0;

  // All tokens of `sequence` are computed and the logits of its logit tokens are read: appends what
  // comes next, and adds to `forks` the sequences that go on from the same tokens. When nothing is
  // appended, the sequence is paused or over.
  virtual void Advance(Sequence* sequence, BlockPool* pool, Sequences* forks) = 0;

  // Whether a sequence to which nothing was appended, or a fork, waits for other sequences of the
  // task. It holds its blocks until they are needed elsewhere. The loop asks again after each step:
  // when it is no longer paused, Advance follows.
  virtual bool IsPaused(const Sequence&) const { return false; }

  // End it early, exactly once and only before it has ended: by kCancelled or kDeadline, or because
  // something broke.
  virtual void Stop(FinishReason reason) = 0;
  virtual void Fail(const absl::Status& status) = 0;

 protected:
  // Where the time went, from arrival until now.
  struct Durations {
    absl::Duration queue;
    absl::Duration prefill;
    absl::Duration decode;
  };
  Durations DurationsUntil(absl::Time now) const {
    const absl::Time started = started_.value_or(now);
    const absl::Time first_read = first_read_.value_or(now);
    return {started - times_.arrival, first_read - started, now - first_read};
  }
  void NoteRead() {
    if (!first_read_.has_value()) first_read_ = absl::Now();
  }
  void set_ended() { ended_ = true; }

 private:
  const uint64_t ticket_;
  const Times times_;
  std::optional<absl::Time> started_;
  std::optional<absl::Time> first_read_;  // The first logits arrived.
  bool ended_ = false;
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_TASK_TASK_H_
