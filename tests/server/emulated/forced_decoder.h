// A decoder around another one that writes down the log-probabilities of every step of every
// request and, when it has a script, lets the engine continue with the script's tokens instead of
// the best ones ("teacher forcing"): so two decoders can be compared on the same tokens, step by
// step. It stands between the real engine and the real transformer.
#ifndef STRUCTATTN_TESTS_SERVER_EMULATED_FORCED_DECODER_H_
#define STRUCTATTN_TESTS_SERVER_EMULATED_FORCED_DECODER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "absl/synchronization/notification.h"
#include "server/model/decoder.h"

namespace structattn {

// Of one request.
struct Trace {
  std::vector<std::vector<float>> logprobs;  // [generated tokens][vocabulary]
  std::vector<int32_t> best;                 // Of each, the decoder's own choice.
};

class ForcedDecoder final : public Decoder {
 public:
  // Request r is the one whose prompt begins with token id r and has prompt_sizes[r] tokens; no
  // other prompt may begin with it. `script`: the tokens that request r shall generate, or empty.
  ForcedDecoder(std::unique_ptr<Decoder> decoder, std::vector<int32_t> prompt_sizes,
                std::vector<std::vector<int32_t>> script);

  // Until Begin the first step waits, so that what is submitted meanwhile shares steps the same way
  // in every run.
  void WaitForFirstStep() const { reached_.WaitForNotification(); }
  void Begin() { begun_.Notify(); }

  absl::StatusOr<KvShape> AllocateKv(int64_t bytes, int32_t block_size) override {
    return decoder_->AllocateKv(bytes, block_size);
  }
  void Forward(const StepBatch& batch, std::span<float> logits) override;
  // Not for runs that want so many rows: they would not be noted.
  void Logits(std::span<const int32_t> rows, std::span<float> logits) override;
  int64_t vocabulary_size() const override { return decoder_->vocabulary_size(); }
  Tiling tiling() const override { return decoder_->tiling(); }

  const std::vector<Trace>& traces() const { return traces_; }
  // Steps that had both tokens of prompts and generated ones, and steps of several sequences.
  int mixed_steps() const { return mixed_steps_; }
  int shared_steps() const { return shared_steps_; }

 private:
  void NoteSequences(const StepBatch& batch);
  void Handle(const QueryTile& tile, const StepBatch& batch, std::span<float> logits);

  const std::unique_ptr<Decoder> decoder_;
  const std::vector<int32_t> prompt_sizes_;
  const std::vector<std::vector<int32_t>> script_;
  std::map<int32_t, int32_t> request_of_block_;  // By the first block of a running sequence.
  std::vector<Trace> traces_;
  absl::Notification reached_;
  absl::Notification begun_;
  int mixed_steps_ = 0;
  int shared_steps_ = 0;
};

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_SERVER_EMULATED_FORCED_DECODER_H_
