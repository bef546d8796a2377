// Implements fakes.h.
#include "tests/server/engine/fakes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

namespace structattn::engine::fake {
namespace {

constexpr int kHeadDim = 16;
constexpr int kLayers = 2;

uint32_t Mix(uint32_t hash, uint32_t value) {
  hash = (hash ^ value) * 0x9E3779B1u;
  return hash ^ (hash >> 15);
}

// A key is two numbers below 2^16, exact in float, in its first two dims.
struct Key {
  uint32_t first;
  uint32_t second;
};

uint32_t Mix(uint32_t hash, Key key) { return Mix(Mix(hash, key.first), key.second); }

Key SplitHash(uint32_t hash) { return {hash & 0xffffu, hash >> 16}; }

void FillLogits(uint32_t hash, std::span<float> logits) {
  for (size_t id = 0; id < logits.size(); ++id) {
    logits[id] = static_cast<float>(Mix(hash, static_cast<uint32_t>(id)) >> 16) * 0x1p-13f - 4.0f;
  }
}

float* KeyAt(const KvLayerView& view, int64_t slot) {
  const int64_t block = slot / view.block_size;
  return static_cast<float*>(view.key) + block * view.head_dim * view.block_size +
         slot % view.block_size;
}

void WriteKey(const KvLayerView& view, int64_t slot, Key key) {
  KeyAt(view, slot)[0] = static_cast<float>(key.first);
  KeyAt(view, slot)[view.block_size] = static_cast<float>(key.second);
}

// Nothing when the memory was never written.
std::optional<Key> ReadKey(const KvLayerView& view, int64_t slot) {
  const float first = KeyAt(view, slot)[0];
  const float second = KeyAt(view, slot)[view.block_size];
  if (std::isnan(first) || std::isnan(second)) return std::nullopt;
  return Key{static_cast<uint32_t>(first), static_cast<uint32_t>(second)};
}

// The hash of each row over its visible keys in one layer.
std::vector<uint32_t> HashRows(const StepBatch& batch, const KvLayerView& view,
                               int64_t* unwritten) {
  std::vector<uint32_t> hashes(batch.tokens(), 0);
  std::vector<QueryTile> tiles = batch.work.tiles;
  tiles.insert(tiles.end(), batch.work.generated.begin(), batch.work.generated.end());
  for (const QueryTile& tile : tiles) {
    for (int32_t row = 0; row < tile.query_count; ++row) {
      uint32_t hash = 1;
      int32_t keys = tile.KeysOfRow(row);
      for (int32_t n = tile.interval_begin; keys > 0; ++n) {
        const KeyInterval interval = batch.work.intervals[n];
        const int32_t end = std::min(interval.end, interval.begin + keys);
        keys -= end - interval.begin;
        for (int32_t slot = interval.begin; slot < end; ++slot) {
          const int64_t entry =
              int64_t{tile.sequence} * batch.block_table_stride + slot / view.block_size;
          const int64_t block = batch.block_tables[entry];
          const std::optional<Key> key =
              ReadKey(view, block * view.block_size + slot % view.block_size);
          if (!key.has_value()) ++*unwritten;
          hash = Mix(hash, key.value_or(Key{0, 0}));
        }
      }
      hashes[tile.row_begin + row] = hash;
    }
  }
  return hashes;
}

uint32_t HashVisible(const Structure& structure, int query, const std::function<Key(int)>& key_of) {
  uint32_t hash = 1;
  for (int j = 0; j <= query; ++j) {
    if (MaySee(structure, query, j)) hash = Mix(hash, key_of(j));
  }
  return hash;
}

class LetterDecoder : public Tokenizer::StreamDecoder {
 public:
  std::string Push(int32_t id) override { return FakeTokenizer().TokenBytes(id); }
  std::string Finish() override { return ""; }
};

class PieceListDecoder : public Tokenizer::StreamDecoder {
 public:
  PieceListDecoder(std::vector<std::string> pieces, std::string last)
      : pieces_(std::move(pieces)), last_(std::move(last)) {}
  std::string Push(int32_t id) override { return pieces_[id]; }
  std::string Finish() override { return std::exchange(last_, ""); }

 private:
  std::vector<std::string> pieces_;
  std::string last_;
};

}  // namespace

absl::StatusOr<KvShape> FakeDecoder::AllocateKv(int64_t bytes, int32_t block_size) {
  const int64_t block_bytes =
      int64_t{kLayers} * block_size * kHeadDim * static_cast<int64_t>(sizeof(float));
  const int64_t blocks = bytes / block_bytes;
  const int64_t floats = blocks * block_size * kHeadDim;
  kv_memory_.assign(floats * kLayers, std::numeric_limits<float>::quiet_NaN());
  kv_.clear();
  for (int layer = 0; layer < kLayers; ++layer) {
    kv_.push_back({.key = kv_memory_.data() + layer * floats,
                   .value = nullptr,
                   .dtype = DType::kFloat32,
                   .block_size = block_size,
                   .kv_heads = 1,
                   .head_dim = kHeadDim});
  }
  return KvShape{.blocks = static_cast<int32_t>(blocks), .block_size = block_size};
}

KvShape FakeDecoder::MakeKv(int32_t blocks) {
  constexpr int32_t kBlockSize = 16;
  constexpr int64_t kBlockBytes = kLayers * kBlockSize * kHeadDim * sizeof(float);
  return *AllocateKv(blocks * kBlockBytes, kBlockSize);
}

void FakeDecoder::Forward(const StepBatch& batch, std::span<float> logits) {
  if (on_forward) on_forward(batch);
  ++steps;
  most_tokens = std::max(most_tokens, batch.tokens());
  for (int64_t row = 0; row < batch.tokens(); ++row) {
    if (batch.token_ids[row] == kThrowId) throw std::runtime_error("broken on purpose\nat line 1");
    WriteKey(
        kv_[0], batch.slots[row],
        {static_cast<uint32_t>(batch.token_ids[row]), static_cast<uint32_t>(batch.positions[row])});
  }
  const std::vector<uint32_t> first = HashRows(batch, kv_[0], &unwritten_keys_read);
  for (int64_t row = 0; row < batch.tokens(); ++row) {
    WriteKey(kv_[1], batch.slots[row], SplitHash(first[row]));
  }
  last_hashes_ = HashRows(batch, kv_[1], &unwritten_keys_read);
  last_token_ids_ = batch.token_ids;
  Logits(batch.logit_rows, logits);
  late_logit_rows -= static_cast<int64_t>(batch.logit_rows.size());
}

void FakeDecoder::Logits(std::span<const int32_t> rows, std::span<float> logits) {
  late_logit_rows += static_cast<int64_t>(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    FillLogits(last_hashes_[rows[i]], logits.subspan(i * kVocabulary, kVocabulary));
    if (last_token_ids_[rows[i]] == kNanId) logits[i * kVocabulary] = std::nanf("");
  }
}

std::vector<float> ReferenceLogits(const std::vector<int32_t>& token_ids,
                                   const Structure& structure, int index) {
  std::vector<Key> first;
  for (int i = 0; i < structure.size(); ++i) {
    first.push_back(SplitHash(HashVisible(structure, i, [&](int j) {
      return Key{static_cast<uint32_t>(token_ids[j]),
                 static_cast<uint32_t>(structure.positions()[j])};
    })));
  }
  std::vector<float> logits(kVocabulary);
  FillLogits(HashVisible(structure, index, [&](int j) { return first[j]; }), logits);
  return logits;
}

std::string FakeTokenizer::TokenBytes(int32_t id) const {
  if (id == kEosId) return "";
  std::string bytes(1, static_cast<char>('a' + id % 26));
  if (id % 7 == 0) bytes += static_cast<char>('a' + id / 7);
  return bytes;
}

std::unique_ptr<Tokenizer::StreamDecoder> FakeTokenizer::NewStreamDecoder() const {
  return std::make_unique<LetterDecoder>();
}

std::unique_ptr<Tokenizer::StreamDecoder> PieceDecoder(std::vector<std::string> pieces,
                                                       std::string last) {
  return std::make_unique<PieceListDecoder>(std::move(pieces), std::move(last));
}

FakeModel::FakeModel(int64_t context_length) : model(std::make_unique<Model>()) {
  model->config.context_length = context_length;
  model->config.vocab_size = kVocabulary;
  model->config.eos_token_ids = {kEosId};
  model->tokenizer = std::make_unique<FakeTokenizer>();
  auto owned = std::make_unique<FakeDecoder>();
  decoder = owned.get();
  model->decoder = std::move(owned);
}

void RecordingSink::OnToken(TokenEvent event) {
  {
    std::lock_guard lock(mutex_);
    if (finish.has_value() || !error.ok()) ++events_after_end;
    Record(event);
    if (event.index > 0) return changed_.notify_all();
    text += event.text;
    token_ids.insert(token_ids.end(), event.token_ids.begin(), event.token_ids.end());
    logprobs.insert(logprobs.end(), event.logprobs.begin(), event.logprobs.end());
    for (auto& best : event.top_logprobs) top_logprobs.push_back(std::move(best));
    changed_.notify_all();
  }
  if (on_token) on_token();
}

void RecordingSink::Record(const TokenEvent& event) {
  if (static_cast<size_t>(event.index) >= continuations.size()) {
    continuations.resize(event.index + 1);
  }
  Recorded& recorded = continuations[event.index];
  if (recorded.finish.has_value()) ++events_after_end;
  recorded.group = event.group;
  recorded.text += event.text;
  recorded.token_ids.insert(recorded.token_ids.end(), event.token_ids.begin(),
                            event.token_ids.end());
  recorded.logprobs.insert(recorded.logprobs.end(), event.logprobs.begin(), event.logprobs.end());
  recorded.top_logprobs.insert(recorded.top_logprobs.end(), event.top_logprobs.begin(),
                               event.top_logprobs.end());
  recorded.member_logprobs.insert(recorded.member_logprobs.end(), event.member_logprobs.begin(),
                                  event.member_logprobs.end());
  recorded.finish = event.finish;
}

void RecordingSink::OnFinish(const FinishEvent& event) {
  std::lock_guard lock(mutex_);
  if (finish.has_value() || !error.ok()) ++events_after_end;
  finish = event;
  changed_.notify_all();
}

void RecordingSink::OnError(const absl::Status& status) {
  std::lock_guard lock(mutex_);
  if (finish.has_value() || !error.ok()) ++events_after_end;
  error = status;
  changed_.notify_all();
}

void RecordingSink::WaitUntilDone() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return finish.has_value() || !error.ok(); });
}

void RecordingSink::WaitForTokens(size_t count) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return token_ids.size() >= count; });
}

bool RecordingSink::done() {
  std::lock_guard lock(mutex_);
  return finish.has_value() || !error.ok();
}

void RecordingScoreSink::OnScores(ScoreEvent event) {
  std::lock_guard lock(mutex_);
  ++answers;
  scores = std::move(event);
  changed_.notify_all();
}

void RecordingScoreSink::OnError(const absl::Status& status) {
  std::lock_guard lock(mutex_);
  ++answers;
  error = status;
  changed_.notify_all();
}

void RecordingScoreSink::WaitUntilDone() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return answers > 0; });
}

EncodedPrompt RandomPrompt(std::mt19937* random, int tokens) {
  RuleTable rule = RuleTable::Preset(static_cast<RulePreset>((*random)() % 4));
  if ((*random)() % 5 == 0) {
    for (int group = 0; group < rule.rows; ++group) {
      rule.visible[group] = (uint64_t{(*random)()} << 32 | (*random)()) | (uint64_t{1} << group);
    }
  }
  EncodedPrompt prompt{.token_ids = {},
                       .segments = std::vector<int32_t>(tokens, 0),
                       .segment_count = 1,
                       .structure = Structure(rule, static_cast<PositionPolicy>((*random)() % 2))};
  int group = 0;
  for (int i = 0; i < tokens; ++i) {
    if ((*random)() % 6 == 0) group = static_cast<int>((*random)() % 5);
    prompt.token_ids.push_back(static_cast<int32_t>((*random)() % kNanId));
    prompt.structure.Append(group);
  }
  return prompt;
}

EncodedPrompt OneGroupPrompt(std::mt19937* random, int tokens) {
  EncodedPrompt prompt{.token_ids = {},
                       .segments = std::vector<int32_t>(tokens, 0),
                       .segment_count = 1,
                       .structure = Structure(RuleTable::Preset(RulePreset::kAnchored),
                                              PositionPolicy::kSequential)};
  for (int i = 0; i < tokens; ++i) {
    prompt.token_ids.push_back(static_cast<int32_t>((*random)() % kNanId));
    prompt.structure.Append(0);
  }
  return prompt;
}

EncodedPrompt FamiliarPrompt(std::mt19937* random) {
  const auto below = [random](int bound) { return static_cast<int>((*random)() % bound); };
  EncodedPrompt prompt{.token_ids = {},
                       .segments = {},
                       .segment_count = 1 + below(5),
                       .structure = Structure(RuleTable::Preset(static_cast<RulePreset>(below(4))),
                                              static_cast<PositionPolicy>(below(2)))};
  for (int segment = 0; segment < prompt.segment_count; ++segment) {
    const int group = segment % 2 == 0 ? 0 : 1 + below(3);
    const int text = below(2);
    const int length = group == 0 ? 18 + 16 * below(2) : 20;
    for (int i = 0; i < length; ++i) {
      prompt.token_ids.push_back((7 * i + 13 * group + 5 * text) % kNanId);
      prompt.segments.push_back(segment);
      prompt.structure.Append(group);
    }
  }
  return prompt;
}

GenerateRequest RandomRequest(std::mt19937* random, int max_prompt_tokens, int max_tokens) {
  const auto below = [random](int bound) { return static_cast<int>((*random)() % bound); };
  GenerateRequest request{.request_id = "",
                          .prompt = RandomPrompt(random, 1 + below(max_prompt_tokens)),
                          .generated_group = below(3) == 0 ? below(6) : 0,
                          .sampling = {},
                          .stopping = {},
                          .top_logprobs = below(4)};
  request.sampling.temperature = below(2) == 0 ? 0.0f : 0.3f + 0.2f * static_cast<float>(below(5));
  request.sampling.top_k = below(3) == 0 ? 1 + below(20) : 0;
  request.sampling.top_p = below(3) == 0 ? 0.8f : 1.0f;
  request.sampling.min_p = below(4) == 0 ? 0.05f : 0.0f;
  request.sampling.repetition_penalty = below(4) == 0 ? 1.3f : 1.0f;
  request.sampling.frequency_penalty = below(4) == 0 ? 0.5f : 0.0f;
  request.sampling.seed = (*random)();
  if (below(5) == 0) request.sampling.logit_bias = {{below(kNanId), 3.0f}, {kEosId, -2.0f}};
  // Generated tokens must not trip the decoder's mines.
  request.sampling.logit_bias.push_back({kThrowId, -1000.0f});
  request.sampling.logit_bias.push_back({kNanId, -1000.0f});
  request.stopping.max_tokens = 1 + below(max_tokens);
  request.stopping.ignore_eos = below(3) == 0;
  if (below(3) == 0) request.stopping.stop_strings = {"ab", "e", "xyz"};
  if (below(4) == 0) request.stopping.stop_token_ids = {5, 17, kEosId};
  return request;
}

}  // namespace structattn::engine::fake
