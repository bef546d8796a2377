// The decoder against itself: one prompt in any cut, any company and any number of threads gives
// the same bits, and tokens that a row may not see do not change one bit of it. That its numbers
// are right is held by the goldens from Hugging Face (tests/golden).
#include "server/model/transformer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/server/model/random_checkpoint.h"

namespace structattn {
namespace {

constexpr int kBlockSize = 16;

ModelConfig SmallConfig() {
  ModelConfig config;
  config.architecture = "qwen3";
  config.vocab_size = 97;
  config.hidden_size = 96;
  config.intermediate_size = 160;
  config.layers = 3;
  config.heads = 6;
  config.kv_heads = 2;
  config.head_dim = 32;
  config.context_length = 512;
  config.rms_norm_epsilon = 1e-6;
  config.rope.theta = 10000.0;
  config.tied_embeddings = true;
  config.qkv_bias = true;
  config.qk_norm = true;
  return config;
}

// The first and the last layer with eight experts, of which a token has three, and a shared one.
ModelConfig MixtureConfigOfTest() {
  ModelConfig config = SmallConfig();
  config.mixture = {.experts = 8,
                    .chosen = 3,
                    .expert_size = 64,
                    .shared_expert_size = 96,
                    .normalizes_weights = true,
                    .layers = {true, false, true}};
  return config;
}

// One sequence with its structure and its KV blocks.
struct TestSequence {
  Structure structure{RuleTable::Preset(RulePreset::kAnchored), PositionPolicy::kAligned};
  VisibleIntervals intervals;
  std::vector<int32_t> ids;
  std::vector<int32_t> blocks;
};

using Logits = std::vector<float>;  // One row per token of a sequence, end to end.

struct Variant {
  DType dtype;
  Quantization quantization;
  bool has_mixture = false;

  ModelConfig config() const { return has_mixture ? MixtureConfigOfTest() : SmallConfig(); }
};

std::string NameOf(const Variant& variant) {
  const char* const form = variant.quantization == Quantization::kInt8     ? "_int8"
                           : variant.quantization == Quantization::kStored ? "_stored"
                                                                           : "";
  return std::string(Name(variant.dtype)) + form + (variant.has_mixture ? "_mixture" : "");
}

// Quantized matrices, but for one in the middle of a stack; reading one expands it.
class QuantizedCheckpoint : public RandomCheckpoint {
 public:
  using RandomCheckpoint::RandomCheckpoint;

  std::optional<QuantMatrix> ReadQuantized(std::string_view name, ThreadPool& pool) const override {
    if (!IsQuantized(name)) return std::nullopt;
    const LoadedMatrix plain = RandomCheckpoint::ReadTensor(name, nullptr);
    return QuantizeRows(plain.view, pool);
  }

 private:
  // Of q, k and v stacked, k alone is not.
  static bool IsQuantized(std::string_view name) {
    return name.find("_proj") != name.npos && name.find("k_proj") == name.npos &&
           name.ends_with(".weight");
  }

  LoadedMatrix ReadTensor(std::string_view name, ThreadPool* pool) const override {
    LoadedMatrix matrix = RandomCheckpoint::ReadTensor(name, pool);
    ThreadPool alone(1);
    const std::optional<QuantMatrix> quantized = ReadQuantized(name, alone);
    if (!quantized.has_value()) return matrix;
    auto* values = reinterpret_cast<float*>(matrix.owned.get());
    Dequantize(quantized->view.format, quantized->owned.get(),
               matrix.view.rows * matrix.view.columns / kChunkInputs, values);
    return matrix;
  }
};

class TransformerTest : public testing::TestWithParam<Variant> {
 protected:
  void Open(int threads) {
    if (GetParam().quantization == Quantization::kStored) {
      Open(threads, GetParam(), QuantizedCheckpoint(GetParam().config()));
    } else {
      Open(threads, GetParam(), RandomCheckpoint(GetParam().config()));
    }
  }

  void Open(int threads, Variant variant, const Checkpoint& checkpoint) {
    const ModelConfig& config = checkpoint.config();
    transformer_ = std::make_unique<Transformer>(
        config, TransformerOptions{.dtype = variant.dtype, .quantization = variant.quantization},
        std::make_unique<ThreadPool>(threads));
    transformer_->Load(checkpoint, {});
    const KvShape kv = *transformer_->AllocateKv(8 << 20, kBlockSize);
    const int64_t layer_bytes =
        kv.capacity_tokens() * config.kv_heads * config.head_dim * ByteSize(variant.dtype);
    for (const KvLayerView& layer : transformer_->kv().layers) {  // What was not written is NaN.
      std::memset(layer.key, 0xff, layer_bytes);
      std::memset(layer.value, 0xff, layer_bytes);
    }
    next_block_ = kv.blocks;
  }

  // Groups 0, 1, 2, 3 and 0 again, `lengths` tokens each; ids from `seed`. Blocks are handed out
  // backwards, so that neighbours in a sequence are not neighbours in memory.
  TestSequence MakeSequence(const std::vector<int>& lengths, uint64_t seed) {
    TestSequence sequence;
    std::mt19937_64 random(seed);
    for (size_t run = 0; run < lengths.size(); ++run) {
      for (int i = 0; i < lengths[run]; ++i) {
        sequence.structure.Append(static_cast<int>(run) % 4);
        sequence.ids.push_back(static_cast<int32_t>(random() % 97));
      }
    }
    sequence.intervals.Extend(sequence.structure);
    for (size_t at = 0; at < sequence.ids.size(); at += kBlockSize) {
      sequence.blocks.push_back(--next_block_);
    }
    return sequence;
  }

  // Adds tokens [begin, end) of the sequence to the batch; all their logits are wanted.
  void Add(const TestSequence& sequence, int begin, int end, StepBatch* batch) {
    const int32_t row_begin = static_cast<int32_t>(batch->tokens());
    const int32_t index = static_cast<int32_t>(batch->block_tables.size()) / kStride;
    for (int i = begin; i < end; ++i) {
      batch->logit_rows.push_back(static_cast<int32_t>(batch->tokens()));
      batch->token_ids.push_back(sequence.ids[i]);
      batch->positions.push_back(sequence.structure.positions()[i]);
      batch->slots.push_back(int64_t{sequence.blocks[i / kBlockSize]} * kBlockSize +
                             i % kBlockSize);
    }
    batch->block_tables.resize((index + 1) * kStride, -1);
    std::copy(sequence.blocks.begin(), sequence.blocks.end(),
              batch->block_tables.begin() + index * kStride);
    batch->block_table_stride = kStride;
    AppendTiles({.structure = &sequence.structure,
                 .intervals = &sequence.intervals,
                 .sequence = index,
                 .row_begin = row_begin,
                 .query_begin = begin,
                 .query_end = end},
                kCpuTileRows, &batch->work);
  }

  Logits Run(const StepBatch& batch) {
    Logits logits(batch.logit_rows.size() * transformer_->vocabulary_size());
    transformer_->Forward(batch, logits);
    return logits;
  }

  // The logits of all tokens, computed in chunks that end at `cuts` and at the end.
  Logits RunInChunks(const TestSequence& sequence, std::vector<int> cuts) {
    cuts.push_back(static_cast<int>(sequence.ids.size()));
    Logits all;
    int begin = 0;
    for (const int end : cuts) {
      StepBatch batch;
      Add(sequence, begin, end, &batch);
      const Logits part = Run(batch);
      all.insert(all.end(), part.begin(), part.end());
      begin = end;
    }
    return all;
  }

  static testing::AssertionResult SameBits(const Logits& a, const Logits& b) {
    if (a.size() != b.size()) return testing::AssertionFailure() << a.size() << " " << b.size();
    for (size_t i = 0; i < a.size(); ++i) {
      if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) {
        return testing::AssertionFailure() << "row " << i / 97 << ": " << a[i] << " vs " << b[i];
      }
    }
    return testing::AssertionSuccess();
  }

  static constexpr int kStride = 16;
  const std::vector<int> lengths_ = {13, 21, 9, 30, 6};  // 79 tokens.
  std::unique_ptr<Transformer> transformer_;
  int32_t next_block_ = 0;
};

TEST_P(TransformerTest, CachedDecodingEqualsRecomputing) {
  Open(2);
  const TestSequence sequence = MakeSequence(lengths_, 1);
  const Logits whole = RunInChunks(sequence, {});
  EXPECT_TRUE(SameBits(RunInChunks(sequence, {1, 17, 40, 41}), whole));
  std::vector<int> token_by_token;
  for (int i = 1; i < 79; ++i) token_by_token.push_back(i);
  EXPECT_TRUE(SameBits(RunInChunks(sequence, token_by_token), whole));
}

TEST_P(TransformerTest, CompanyAndThreadsChangeNoBit) {
  Open(1);
  const TestSequence sequence = MakeSequence(lengths_, 1);
  const Logits alone = RunInChunks(sequence, {});
  Open(2);
  const TestSequence other = MakeSequence({3, 40, 2, 50}, 2);
  const TestSequence same = MakeSequence(lengths_, 1);
  StepBatch batch;
  Add(other, 0, 95, &batch);
  Add(same, 0, 79, &batch);
  const Logits together = Run(batch);
  EXPECT_TRUE(
      SameBits(Logits(together.end() - static_cast<int64_t>(alone.size()), together.end()), alone));
}

TEST_P(TransformerTest, InvisibleTokensChangeNoBitAndVisibleOnesDo) {
  Open(2);
  TestSequence sequence = MakeSequence(lengths_, 1);
  const Logits before = RunInChunks(sequence, {});
  sequence.ids[0] = (sequence.ids[0] + 1) % 97;    // Group 0: only group 0 sees it.
  sequence.ids[35] = (sequence.ids[35] + 1) % 97;  // Group 2: groups 0 and 2 see it.
  const Logits after = RunInChunks(sequence, {});
  auto row = [](const Logits& logits, int t) {
    return Logits(logits.begin() + t * 97, logits.begin() + (t + 1) * 97);
  };
  for (int t = 0; t < 79; ++t) {
    const int group = sequence.structure.groups()[t];
    const bool sees_change = group == 0 || (group == 2 && t >= 35);
    EXPECT_EQ(!sees_change, static_cast<bool>(SameBits(row(before, t), row(after, t))))
        << "token " << t << " of group " << group;
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, TransformerTest,
                         testing::Values(Variant{DType::kFloat32, Quantization::kNone},
                                         Variant{DType::kBfloat16, Quantization::kNone},
                                         Variant{DType::kFloat16, Quantization::kNone},
                                         Variant{DType::kFloat32, Quantization::kInt8},
                                         Variant{DType::kBfloat16, Quantization::kInt8},
                                         Variant{DType::kBfloat16, Quantization::kStored},
                                         Variant{DType::kFloat32, Quantization::kNone, true},
                                         Variant{DType::kBfloat16, Quantization::kNone, true},
                                         Variant{DType::kBfloat16, Quantization::kInt8, true},
                                         Variant{DType::kBfloat16, Quantization::kStored, true}),
                         [](const auto& info) { return NameOf(info.param); });

// One expert of the first layer is not a number.
class PoisonedCheckpoint : public RandomCheckpoint {
 public:
  PoisonedCheckpoint(const ModelConfig& config, int expert)
      : RandomCheckpoint(config),
        prefix_("model.layers.0.mlp.experts." + std::to_string(expert) + ".") {}

 private:
  LoadedMatrix ReadTensor(std::string_view name, ThreadPool* pool) const override {
    LoadedMatrix matrix = RandomCheckpoint::ReadTensor(name, pool);
    if (!name.starts_with(prefix_)) return matrix;
    auto* values = reinterpret_cast<float*>(matrix.owned.get());
    std::fill_n(values, matrix.view.rows * matrix.view.columns, std::nanf(""));
    return matrix;
  }

  const std::string prefix_;
};

class MixtureTest : public TransformerTest {};

// A token's logits are not a number where an expert that it chose is not; they are, bit for bit,
// the clean model's where it is another, so the step has read nothing of that one.
TEST_P(MixtureTest, AStepReadsOnlyTheExpertsThatItsTokenChose) {
  const auto logits = [&](const Checkpoint& checkpoint) {
    Open(2, GetParam(), checkpoint);
    return RunInChunks(MakeSequence({1}, 5), {});
  };
  const Logits clean = logits(RandomCheckpoint(MixtureConfigOfTest()));
  int chosen = 0;
  for (int expert = 0; expert < 8; ++expert) {
    const Logits poisoned = logits(PoisonedCheckpoint(MixtureConfigOfTest(), expert));
    const bool is_chosen = std::isnan(poisoned[0]);
    chosen += is_chosen;
    EXPECT_TRUE(is_chosen || SameBits(poisoned, clean)) << "expert " << expert;
  }
  EXPECT_EQ(chosen, 3);
}

INSTANTIATE_TEST_SUITE_P(Forms, MixtureTest,
                         testing::Values(Variant{DType::kFloat32, Quantization::kNone, true},
                                         Variant{DType::kBfloat16, Quantization::kNone, true},
                                         Variant{DType::kBfloat16, Quantization::kInt8, true}),
                         [](const auto& info) { return NameOf(info.param); });

class QuantizationTest : public TransformerTest {};

// In float32, quant blocks mean the very numbers that expanding them gives.
TEST_P(QuantizationTest, StoredQuantBlocksGiveTheBitsOfTheExpandedModel) {
  const QuantizedCheckpoint checkpoint(GetParam().config());
  Open(2, {DType::kFloat32, Quantization::kNone}, checkpoint);
  EXPECT_EQ(transformer_->weights().format, "float32");
  const int64_t expanded_bytes = transformer_->weights().linear_bytes;
  const Logits expanded = RunInChunks(MakeSequence(lengths_, 1), {});
  Open(2, {DType::kFloat32, Quantization::kStored}, checkpoint);
  EXPECT_EQ(transformer_->weights().format, "Q8_0+float32");
  EXPECT_LT(transformer_->weights().linear_bytes, expanded_bytes);
  EXPECT_TRUE(SameBits(RunInChunks(MakeSequence(lengths_, 1), {}), expanded));
}

TEST_P(QuantizationTest, Int8IsNearTheModelThatWasRounded) {
  const QuantizedCheckpoint checkpoint(GetParam().config());
  Open(2, {GetParam().dtype, Quantization::kInt8}, checkpoint);
  EXPECT_EQ(transformer_->weights().format, "int8");
  const Logits rounded = RunInChunks(MakeSequence(lengths_, 1), {});
  Open(2, {GetParam().dtype, Quantization::kNone}, RandomCheckpoint(GetParam().config()));
  const Logits plain = RunInChunks(MakeSequence(lengths_, 1), {});
  double difference = 0.0;
  double magnitude = 0.0;
  for (size_t i = 0; i < plain.size(); ++i) {
    difference += std::abs(plain[i] - rounded[i]);
    magnitude += std::abs(plain[i]);
  }
  EXPECT_GT(difference, 0.0);
  EXPECT_LT(difference, 0.03 * magnitude);  // A code is within 1/254 of its quant block's largest.
}

INSTANTIATE_TEST_SUITE_P(Forms, QuantizationTest,
                         testing::Values(Variant{DType::kFloat32, Quantization::kStored},
                                         Variant{DType::kFloat32, Quantization::kStored, true}),
                         [](const auto& info) { return NameOf(info.param); });

}  // namespace
}  // namespace structattn
