// Stand-ins for the engine's tests: a decoder that costs nothing but trips over every wrong slot,
// block table, position or tile; a tokenizer; a sink that records.
#ifndef STRUCTATTN_TESTS_SERVER_ENGINE_FAKES_H_
#define STRUCTATTN_TESTS_SERVER_ENGINE_FAKES_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "server/engine/prompt/continuation_tokens.h"
#include "server/engine/sampling/sampling_params.h"
#include "server/engine/task/generate_events.h"
#include "server/engine/task/generate_request.h"
#include "server/engine/task/score_request.h"
#include "server/model/decoder.h"
#include "server/model/model.h"
#include "server/model/tokenizer/tokenizer.h"

namespace structattn::engine::fake {

inline constexpr int kVocabulary = 97;
inline constexpr int kEosId = 96;
inline constexpr int kThrowId = 95;  // A prompt token at which FakeDecoder throws.
inline constexpr int kNanId = 94;    // A last token after which the logits are NaN.

// Two "layers" of hashing. Layer 1 stores token id and position as its key; a row's first hash runs
// over the visible keys of layer 1, in order. Layer 2 stores that hash; the second hash runs over
// the visible keys of layer 2 and makes the logits. So, as in a transformer, a key depends on what
// its own token saw. Keys are read through tiles, intervals and block tables only.
class FakeDecoder : public Decoder {
 public:
  absl::StatusOr<KvShape> AllocateKv(int64_t bytes, int32_t block_size) override;
  void Forward(const StepBatch& batch, std::span<float> logits) override;
  void Logits(std::span<const int32_t> rows, std::span<float> logits) override;
  int64_t vocabulary_size() const override { return kVocabulary; }
  Tiling tiling() const override { return tiling_value; }
  bool usable() const override { return survives_failure; }

  // Takes new KV memory of so many blocks of 16 tokens, every byte of it a NaN.
  KvShape MakeKv(int32_t blocks);

  Tiling tiling_value;
  bool survives_failure = true;
  // Called at the start of each Forward.
  std::function<void(const StepBatch&)> on_forward;
  int64_t steps = 0;
  int64_t most_tokens = 0;          // In one step.
  int64_t unwritten_keys_read = 0;  // Visible keys whose memory was never written.
  int64_t late_logit_rows = 0;      // Asked for after their Forward.

 private:
  std::vector<float> kv_memory_;
  std::vector<KvLayerView> kv_;          // One view per "layer".
  std::vector<int32_t> last_token_ids_;  // Of the last batch, and what its rows' logits come from.
  std::vector<uint32_t> last_hashes_;
};

// What FakeDecoder must find, straight from MaySee: the logits after token `index`.
std::vector<float> ReferenceLogits(const std::vector<int32_t>& token_ids,
                                   const Structure& structure, int index);

// Id i is the i-th lower-case letter (modulo 26); every seventh id is two letters, kEosId special.
class FakeTokenizer : public Tokenizer {
 public:
  absl::StatusOr<std::vector<Token>> Encode(std::span<const TextSegment>,
                                            const std::stop_token&) const override {
    return std::vector<Token>();
  }
  std::span<const int32_t> special_prefix() const override { return {}; }
  std::span<const int32_t> special_suffix() const override { return {}; }
  int32_t vocabulary_size() const override { return kVocabulary; }
  int32_t plain_vocabulary_size() const override { return kVocabulary; }
  std::span<const std::string> warnings() const override { return {}; }
  bool IsSpecial(int32_t id) const override { return id == kEosId; }
  std::string TokenBytes(int32_t id) const override;
  int32_t FindToken(std::string_view) const override { return -1; }
  std::unique_ptr<StreamDecoder> NewStreamDecoder() const override;
};

// A decoder of pieces given one by one, for text streams: id i is pieces[i], `last` comes at the
// end.
std::unique_ptr<Tokenizer::StreamDecoder> PieceDecoder(std::vector<std::string> pieces,
                                                       std::string last = "");

// config (context length, EOS), tokenizer and decoder; `decoder` stays reachable for the test.
struct FakeModel {
  explicit FakeModel(int64_t context_length = 4096);
  std::unique_ptr<Model> model;
  FakeDecoder* decoder;
};

// What came of one continuation.
struct Recorded {
  int32_t group = 0;
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<float> logprobs;
  std::vector<std::vector<TokenLogprob>> top_logprobs;
  std::vector<std::vector<float>> member_logprobs;
  std::optional<FinishReason> finish;
};

class RecordingSink : public EventSink {
 public:
  void OnToken(TokenEvent event) override;
  void OnFinish(const FinishEvent& event) override;
  void OnError(const absl::Status& status) override;

  void WaitUntilDone();
  void WaitForTokens(size_t count);
  bool done();

  // Called within OnToken, on the engine's thread.
  std::function<void()> on_token;
  // Read them when done. Of the first continuation:
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<float> logprobs;
  std::vector<std::vector<TokenLogprob>> top_logprobs;
  // Of all:
  std::vector<Recorded> continuations;  // By index.
  std::optional<FinishEvent> finish;
  absl::Status error;
  int events_after_end = 0;

 private:
  void Record(const TokenEvent& event);  // mutex_ held.

  std::mutex mutex_;
  std::condition_variable changed_;
};

class RecordingScoreSink : public ScoreSink {
 public:
  void OnScores(ScoreEvent event) override;
  void OnError(const absl::Status& status) override;
  void WaitUntilDone();

  std::optional<ScoreEvent> scores;
  absl::Status error;
  int answers = 0;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

// A prompt of random ids (none special to the fakes) with random groups under a random rule.
EncodedPrompt RandomPrompt(std::mt19937* random, int tokens);

// Random ids (none special to the fakes) in group 0.
EncodedPrompt OneGroupPrompt(std::mt19937* random, int tokens);

// Parts drawn from few texts, in few groups, under a preset: such prompts have much in common.
EncodedPrompt FamiliarPrompt(std::mt19937* random);

// RandomPrompt in a request with random sampling and stopping. Seeded: equal for equal states.
GenerateRequest RandomRequest(std::mt19937* random, int max_prompt_tokens, int max_tokens);

// What a continuation of the request must yield, computed without engine, batch or cache.
struct Expected {
  std::vector<int32_t> token_ids;
  std::vector<float> logprobs;
  std::vector<std::vector<float>> member_logprobs;
  std::string text;
  FinishReason reason = FinishReason::kLength;
};
Expected ExpectedResult(const GenerateRequest& request, int64_t context_length, int32_t branch = 0,
                        int32_t sample = 0);

// The same for the fused answer of its branches, which are there, with these weights.
Expected ExpectedFusion(const GenerateRequest& request, int64_t context_length,
                        const std::vector<double>& weights);

// The same for scores.
struct ExpectedScores {
  std::vector<TokenScores> continuations;
  TokenScores prompt_logprobs;
};
ExpectedScores ExpectedScoresOf(const ScoredPrompt& scored);

}  // namespace structattn::engine::fake

#endif  // STRUCTATTN_TESTS_SERVER_ENGINE_FAKES_H_
