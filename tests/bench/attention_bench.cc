// Times Attention on the CPU: causal prompts of 4096 tokens, the same tokens as 16 isolated groups,
// and decoding. Checks rows against the double-precision reference first. Prints the rate over
// visible pairs (4 x head_dim flops each) and its share of this core's plain multiply-add rate,
// measured in the same run. Run by hand: attention_bench [threads].
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/check.h"
#include "tests/bench/fma_peak.h"
#include "tests/reference/attention.h"

namespace structattn {
namespace {

constexpr int kTokens = 4096;
constexpr int kBlockSize = 32;

struct BenchCase {
  const char* name;
  RulePreset preset;
  int groups;       // Of equal length.
  int query_begin;  // Tokens before it are cached.
  DType dtype;
  int heads;
  int kv_heads;
  int head_dim;
};

// One thread: its CPU time, since a busy machine's wall time would measure the neighbours.
double Now(const ThreadPool& pool) {
  timespec time;
  clock_gettime(pool.threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// A sequence with its cache, blocks in order.
template <typename T>
class Bench {
 public:
  explicit Bench(const BenchCase& bench_case)
      : case_(bench_case),
        sequence_{.structure = MakeStructure(bench_case), .query = {}, .key = {}, .value = {}} {
    Fill(case_.heads, &sequence_.query);
    Fill(case_.kv_heads, &sequence_.key);
    Fill(case_.kv_heads, &sequence_.value);
    for (float& x : sequence_.key) x = ToFloat(FromFloat<T>(x));
    for (float& x : sequence_.value) x = ToFloat(FromFloat<T>(x));
    WriteCache();
    VisibleIntervals visible;
    visible.Extend(sequence_.structure);
    AppendTiles({.structure = &sequence_.structure,
                 .intervals = &visible,
                 .sequence = 0,
                 .row_begin = 0,
                 .query_begin = case_.query_begin,
                 .query_end = kTokens},
                kCpuTileRows, &work_);
    output_.resize(size_t(kTokens - case_.query_begin) * case_.heads * case_.head_dim);
  }

  // Best seconds of a few calls.
  double Time(ThreadPool& pool) {
    const AttentionParams params = Params();
    Attention({.device = DeviceKind::kCpu, .pool = &pool}, params);
    CheckRow(kTokens - 1);
    CheckRow(case_.query_begin + (kTokens - case_.query_begin) / 2);
    double best = 1e30;
    double total = 0.0;
    for (int n = 0; n < 100 && (n < 5 || total < 2.0); ++n) {
      const double start = Now(pool);
      Attention({.device = DeviceKind::kCpu, .pool = &pool}, params);
      const double elapsed = Now(pool) - start;
      best = std::min(best, elapsed);
      total += elapsed;
    }
    return best;
  }

  int64_t VisiblePairs() const {
    int64_t pairs = 0;
    for (int i = case_.query_begin; i < kTokens; ++i) {
      for (const Run& run : sequence_.structure.runs()) {
        if (run.begin > i) break;
        if (MaySee(sequence_.structure, i, run.begin))
          pairs += std::min(run.end, i + 1) - run.begin;
      }
    }
    return pairs;
  }

 private:
  static Structure MakeStructure(const BenchCase& bench_case) {
    Structure structure(RuleTable::Preset(bench_case.preset), PositionPolicy::kSequential);
    for (int i = 0; i < kTokens; ++i) structure.Append(1 + i * bench_case.groups / kTokens);
    return structure;
  }

  void Fill(int heads, std::vector<float>* tensor) {
    tensor->resize(size_t{kTokens} * heads * case_.head_dim);
    for (float& x : *tensor) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      x = static_cast<float>(static_cast<int64_t>(state_) >> 40) * 0x1p-22f;
    }
  }

  void WriteCache() {
    key_.resize(sequence_.key.size());
    value_.resize(sequence_.value.size());
    for (int64_t token = 0; token < kTokens; ++token) {
      for (int64_t head = 0; head < case_.kv_heads; ++head) {
        const int64_t base =
            (token / kBlockSize * case_.kv_heads + head) * case_.head_dim * kBlockSize;
        const int64_t from = (token * case_.kv_heads + head) * case_.head_dim;
        for (int64_t dim = 0; dim < case_.head_dim; ++dim) {
          const int64_t slot = token % kBlockSize;
          key_[base + dim * kBlockSize + slot] = FromFloat<T>(sequence_.key[from + dim]);
          value_[base + slot * case_.head_dim + dim] = FromFloat<T>(sequence_.value[from + dim]);
        }
      }
    }
    for (int block = 0; block < kTokens / kBlockSize; ++block) table_.push_back(block);
  }

  AttentionParams Params() {
    AttentionParams params;
    params.query =
        sequence_.query.data() + int64_t{case_.query_begin} * case_.heads * case_.head_dim;
    params.output = output_.data();
    params.kv = {.key = key_.data(),
                 .value = value_.data(),
                 .dtype = case_.dtype,
                 .block_size = kBlockSize,
                 .kv_heads = case_.kv_heads,
                 .head_dim = case_.head_dim};
    params.heads = case_.heads;
    params.scale = 1.0f / std::sqrt(static_cast<float>(case_.head_dim));
    params.block_tables = table_.data();
    params.block_table_stride = static_cast<int32_t>(table_.size());
    params.tiles = work_.tiles.data();
    params.tile_count = static_cast<int32_t>(work_.tiles.size());
    params.intervals = work_.intervals.data();
    return params;
  }

  void CheckRow(int token) {
    const HeadShape shape = {case_.heads, case_.kv_heads, case_.head_dim, Params().scale};
    for (int head = 0; head < case_.heads; ++head) {
      const ReferenceRow row = ReferenceAttention(sequence_, shape, token, head);
      const float* output =
          output_.data() +
          (int64_t{token - case_.query_begin} * case_.heads + head) * case_.head_dim;
      for (int dim = 0; dim < case_.head_dim; ++dim) {
        const double allowed = row.tolerance[dim] + std::abs(row.output[dim]) * 0x1p-24;
        STRUCTATTN_CHECK(std::abs(output[dim] - row.output[dim]) <= allowed);
      }
    }
  }

  const BenchCase case_;
  SequenceTensors sequence_;
  uint64_t state_ = 1;
  std::vector<T> key_;
  std::vector<T> value_;
  std::vector<int32_t> table_;
  std::vector<float> output_;
  WorkList work_;
};

template <typename T>
void Report(const BenchCase& bench_case, ThreadPool& pool, double peak_gflops) {
  Bench<T> bench(bench_case);
  const double seconds = bench.Time(pool);
  const double flops = 4.0 * bench.VisiblePairs() * bench_case.heads * bench_case.head_dim;
  const double gflops = flops / seconds * 1e-9;
  const double bytes = 2.0 * kTokens * bench_case.kv_heads * bench_case.head_dim * sizeof(T);
  std::printf("%-22s %-8s %2d/%d heads of %3d: %9.3f ms  %7.1f GFLOP/s  %5.1f %% of FMA peak",
              bench_case.name, std::string(Name(bench_case.dtype)).c_str(), bench_case.heads,
              bench_case.kv_heads, bench_case.head_dim, seconds * 1e3, gflops,
              100 * gflops / (peak_gflops * pool.threads()));
  if (kTokens - bench_case.query_begin == 1) std::printf("  %6.1f GB/s", bytes / seconds * 1e-9);
  std::printf("\n");
}

}  // namespace
}  // namespace structattn

int main(int argc, char** argv) {
  using namespace structattn;
  ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 1);
  const double peak = FmaPeakGflops();
  std::printf("%s, %d threads, plain FMA peak of one core %.1f GFLOP/s\n",
              std::string(AttentionKernelName(DeviceKind::kCpu)).c_str(), pool.threads(), peak);
  for (const DType dtype : {DType::kFloat32, DType::kBfloat16, DType::kFloat16}) {
    for (const int head_dim : {64, 128}) {
      const BenchCase cases[] = {
          {"causal", RulePreset::kCausal, 1, 0, dtype, 8, 8, head_dim},
          {"causal, shared KV", RulePreset::kCausal, 1, 0, dtype, 8, 2, head_dim},
          {"16 isolated groups", RulePreset::kIsolated, 16, 0, dtype, 8, 8, head_dim},
          {"one token", RulePreset::kCausal, 1, kTokens - 1, dtype, 8, 8, head_dim},
          {"one token, shared KV", RulePreset::kCausal, 1, kTokens - 1, dtype, 8, 2, head_dim}};
      for (const BenchCase& bench_case : cases) {
        if (dtype == DType::kFloat32) Report<float>(bench_case, pool, peak);
        if (dtype == DType::kBfloat16) Report<Bfloat16>(bench_case, pool, peak);
        if (dtype == DType::kFloat16) Report<Float16>(bench_case, pool, peak);
      }
    }
  }
  return 0;
}
