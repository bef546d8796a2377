// What a structured prefill of 32k tokens keeps besides KV and activations: structure, intervals,
// work-list and the kernel's scratch. Everything that is allocated is kept for the next step, so
// the heap afterwards holds the most that was ever needed.
#include <gtest/gtest.h>
#include <malloc.h>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <thread>
#include <vector>

#include "kernels/attention/attention.h"

namespace structattn {
namespace {

constexpr int kTokens = 32768;
constexpr int kGroups = 63;
constexpr int kChunk = 512;
constexpr int kBlockSize = 32;
constexpr int kHeadDim = 64;
constexpr size_t kAllowedBytes = 1'000'000;

size_t HeapBytes() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

// Few-shot text, 63 questions and a cue that sees them all.
int GroupOf(int token) {
  constexpr int kContext = 512;
  constexpr int kCue = 64;
  if (token < kContext || token >= kTokens - kCue) return 0;
  return 1 + (token - kContext) * kGroups / (kTokens - kCue - kContext);
}

// One layer's cache and the tensors of a chunk, of zeros.
class Prefill {
 public:
  Prefill(DType dtype, int threads)
      : kv_bytes_(size_t{kTokens} * kHeadDim * ByteSize(dtype)),
        key_(kv_bytes_),
        value_(kv_bytes_),
        query_(kChunk * kHeadDim),
        output_(kChunk * kHeadDim),
        blocks_(kTokens / kBlockSize),
        pool_(threads) {
    std::iota(blocks_.begin(), blocks_.end(), 0);
    params_.query = query_.data();
    params_.output = output_.data();
    params_.kv = {.key = key_.data(),
                  .value = value_.data(),
                  .dtype = dtype,
                  .block_size = kBlockSize,
                  .kv_heads = 1,
                  .head_dim = kHeadDim};
    params_.heads = 1;
    params_.scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim));
    params_.block_tables = blocks_.data();
    params_.block_table_stride = static_cast<int32_t>(blocks_.size());
  }

  // The heap bytes that a prefill under `preset` keeps.
  size_t Measure(RulePreset preset) {
    const size_t before = HeapBytes();
    Structure structure(RuleTable::Preset(preset), PositionPolicy::kAligned);
    VisibleIntervals intervals;
    WorkList work;
    for (int token = 0; token < kTokens; ++token) structure.Append(GroupOf(token));
    intervals.Extend(structure);
    for (int begin = 0; begin < kTokens; begin += kChunk) {
      work.Clear();
      AppendTiles({.structure = &structure,
                   .intervals = &intervals,
                   .sequence = 0,
                   .row_begin = 0,
                   .query_begin = begin,
                   .query_end = begin + kChunk},
                  kCpuTileRows, &work);
      params_.tiles = work.tiles.data();
      params_.tile_count = static_cast<int32_t>(work.tiles.size());
      params_.intervals = work.intervals.data();
      Attention({.device = DeviceKind::kCpu, .pool = &pool_}, params_);
    }
    return HeapBytes() - before;
  }

 private:
  const size_t kv_bytes_;
  std::vector<char> key_;
  std::vector<char> value_;
  std::vector<float> query_;
  std::vector<float> output_;
  std::vector<int32_t> blocks_;
  ThreadPool pool_;
  AttentionParams params_;
};

TEST(AttentionMemoryTest, StructuredPrefillOf32kTokensKeepsLessThanAMegabyte) {
  for (const DType dtype : {DType::kBfloat16, DType::kFloat16, DType::kFloat32}) {
    for (const RulePreset preset :
         {RulePreset::kAnchored, RulePreset::kShared, RulePreset::kIsolated}) {
      Prefill prefill(dtype, 2);
      size_t bytes = 0;
      // The caller is a new thread, too, so that the scratch of both threads is new.
      std::thread([&] { bytes = prefill.Measure(preset); }).join();
      EXPECT_LT(bytes, kAllowedBytes) << Name(dtype) << ", preset " << static_cast<int>(preset);
      EXPECT_GT(bytes, size_t{kTokens});  // The measure sees at least the structure.
    }
  }
}

}  // namespace
}  // namespace structattn
