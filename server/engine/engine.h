// The engine of one model: a bounded queue in front of one thread that owns all serving state and
// runs step after step over a batch of sequences. Its methods may be called from any thread; the
// sinks of requests are called on the engine thread only.
#ifndef STRUCTATTN_SERVER_ENGINE_ENGINE_H_
#define STRUCTATTN_SERVER_ENGINE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/engine/task/generate_events.h"
#include "server/engine/task/generate_request.h"
#include "server/engine/task/score_request.h"
#include "server/model/model.h"

namespace structattn::engine {

struct EngineOptions {
  int64_t kv_memory_bytes = int64_t{2} << 30;  // LoadServedModel has at most so many allocated.
  bool kv_memory_given = false;                // The operator's wish, which never shrinks.
  int32_t block_size = 16;                     // Tokens per KV block; a multiple of 16.
  int32_t max_queued_requests = 256;
  int32_t max_running_sequences = 64;
  int32_t max_step_tokens = 512;  // Tokens of one step: decodes first, then prompt chunks.
  // Called once, on the engine's thread, when the device is lost: every request fails from then on.
  // May be empty.
  std::function<void()> on_device_lost = nullptr;
};

class Engine {
 public:
  // `model` outlives the engine; `kv` is what its decoder has allocated.
  Engine(Model* model, const KvShape& kv, const EngineOptions& options);
  // Cancels what is left (sinks get kCancelled) and joins the thread.
  ~Engine();

  // Names a submitted request for Cancel; never 0.
  using Ticket = uint64_t;

  // Queues the request. RESOURCE_EXHAUSTED at once when the queue is full, or when a prompt with
  // one of its continuations can never fit into KV memory; UNAVAILABLE when draining. `sink` is
  // kept until OnFinish or OnError; on an error return it is never called.
  absl::StatusOr<Ticket> Submit(GenerateRequest request, std::shared_ptr<EventSink> sink);
  // Queues a request to score, on the same terms; `sink` is kept until OnScores or OnError.
  absl::StatusOr<Ticket> Submit(ScoreRequest request, std::shared_ptr<ScoreSink> sink);

  // Stops the request within one step (its sink gets kCancelled). Unknown or finished: no effect.
  void Cancel(Ticket ticket);

  // Refuses new requests from now on and waits until the accepted ones are done or `deadline`
  // passes; true when all are done.
  bool Drain(absl::Time deadline);

  // Tokens that KV memory holds.
  int64_t kv_capacity_tokens() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_ENGINE_H_
