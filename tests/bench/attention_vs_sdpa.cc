// CPU attention beside PyTorch's scaled_dot_product_attention, in one process on the same tensors.
// Checks the answers first, then times both in turn and prints rates, ratios and the bars: causal
// prompts, structured prompts against causal ones, a dense mask, decoding against the read
// bandwidth of a buffer as large as the KV. Run by hand: attention_vs_sdpa [threads] [part] with
// parts causal, types, structured, dense, decode (all of them without one).
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/check.h"
#include "tests/bench/attention_case.h"
#include "tests/bench/fma_peak.h"

namespace structattn {
namespace {

// One thread: its CPU time, since a busy machine's wall time would measure the neighbours.
double Now(const ThreadPool& pool) {
  timespec time;
  clock_gettime(pool.threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// The best seconds of each function, called in turn, after one call that does not count.
std::vector<double> Best(const ThreadPool& pool, double budget_s,
                         const std::vector<std::function<void()>>& functions) {
  std::vector<double> best(functions.size(), 1e30);
  double spent = 0.0;
  for (int round = 0; round < 60 && (round < 4 || spent < budget_s); ++round) {
    for (size_t n = 0; n < functions.size(); ++n) {
      const double start = Now(pool);
      functions[n]();
      const double elapsed = Now(pool) - start;
      if (round > 0) best[n] = std::min(best[n], elapsed);
      spent += elapsed;
    }
  }
  return best;
}

at::ScalarType TorchType(DType dtype) {
  if (dtype == DType::kBfloat16) return at::kBFloat16;
  return dtype == DType::kFloat16 ? at::kHalf : at::kFloat;
}

// The same tensors as PyTorch wants them: [1, heads, tokens, head_dim].
struct SdpaCase {
  explicit SdpaCase(const AttentionCase& source) {
    const AttentionProblem& problem = source.problem();
    const auto view = [&](const std::vector<float>& tensor, int heads) {
      return at::from_blob(const_cast<float*>(tensor.data()),
                           {1, problem.tokens, heads, problem.head_dim}, at::kFloat)
          .transpose(1, 2)
          .contiguous()
          .to(TorchType(problem.dtype));
    };
    query = view(source.sequence().query, problem.heads);
    key = view(source.sequence().key, problem.kv_heads);
    value = view(source.sequence().value, problem.kv_heads);
  }

  void Causal() { result = at::scaled_dot_product_attention(query, key, value, {}, 0.0, true); }
  void Masked(const at::Tensor& mask) {
    result = at::scaled_dot_product_attention(query, key, value, mask);
  }

  at::Tensor query, key, value, result;
};

const char* Verdict(bool reached) { return reached ? "ok" : "MISSED"; }

struct Bench {
  ThreadPool& pool;
  double peak_gflops;  // Of all threads.

  std::string Name(const AttentionProblem& problem) const {
    constexpr const char* kNames[] = {"ANCHORED", "SHARED", "ISOLATED", "CAUSAL"};
    char text[96];
    std::snprintf(text, sizeof(text), "%-8s %5d tokens %2d groups %d/%d x %3d %-8s",
                  kNames[static_cast<int>(problem.preset)], problem.tokens, problem.groups,
                  problem.heads, problem.kv_heads, problem.head_dim,
                  std::string(structattn::Name(problem.dtype)).c_str());
    return text;
  }

  void Causal(const AttentionProblem& problem) {
    AttentionCase ours(problem);
    SdpaCase theirs(ours);
    ours.Run(pool);
    ours.Check();
    const auto best = Best(pool, 4.0, {[&] { theirs.Causal(); }, [&] { ours.Run(pool); }});
    const double flops = 4e-9 * ours.VisiblePairs() * problem.heads * problem.head_dim;
    std::printf("%s: SDPA %6.1f GFLOP/s, ours %6.1f (%5.1f %% of FMA peak), ratio %.2f%s\n",
                Name(problem).c_str(), flops / best[0], flops / best[1],
                100 * flops / best[1] / peak_gflops, best[0] / best[1],
                problem.dtype != DType::kBfloat16 ? ""
                : best[0] / best[1] >= 0.9        ? " (bar 0.90: ok)"
                                                  : " (bar 0.90: MISSED)");
  }

  // Three rules with the same groups against causal attention over the same tokens.
  void Structured(int tokens, int groups, int head_dim) {
    AttentionCase causal({.tokens = tokens, .head_dim = head_dim});
    std::vector<AttentionCase> cases;
    for (const RulePreset preset :
         {RulePreset::kAnchored, RulePreset::kShared, RulePreset::kIsolated}) {
      cases.push_back(AttentionCase(
          {.preset = preset, .groups = groups, .tokens = tokens, .head_dim = head_dim}));
    }
    std::vector<std::function<void()>> functions = {[&] { causal.Run(pool); }};
    for (AttentionCase& structured : cases) {
      structured.Run(pool);
      structured.Check();
      functions.push_back([&] { structured.Run(pool); });
    }
    const auto best = Best(pool, 3.0, functions);
    for (size_t n = 0; n < cases.size(); ++n) {
      const double visible = 100.0 * cases[n].VisiblePairs() / causal.VisiblePairs();
      const double tiles = 100.0 * cases[n].TilePairs() / causal.TilePairs();
      const double time = 100.0 * best[n + 1] / best[0];
      std::printf(
          "%s: visible %5.2f %%, in tiles %5.2f %%, time %5.2f %% (%8.3f ms; bar %5.2f: %s)\n",
          Name(cases[n].problem()).c_str(), visible, tiles, time, best[n + 1] * 1e3, tiles + 5,
          Verdict(time <= tiles + 5));
    }
  }

  // SDPA with the same rule as a dense mask.
  void Dense(int tokens, int groups, int head_dim) {
    AttentionCase ours({.preset = RulePreset::kIsolated,
                        .groups = groups,
                        .tokens = tokens,
                        .head_dim = head_dim});
    SdpaCase theirs(ours);
    ours.Run(pool);
    ours.Check();
    const auto group = at::arange(tokens, at::kLong) * groups / tokens;
    const auto index = at::arange(tokens, at::kLong);
    const auto owner = group.floor().to(at::kInt);
    const at::Tensor sees =
        owner.unsqueeze(1).eq(owner.unsqueeze(0)) & index.unsqueeze(1).ge(index.unsqueeze(0));
    const at::Tensor mask =
        at::zeros({tokens, tokens}, at::kBFloat16).masked_fill_(sees.logical_not(), -INFINITY);
    const auto best = Best(pool, 1.0, {[&] { theirs.Masked(mask); }, [&] { ours.Run(pool); }});
    std::printf("%s: SDPA with a dense mask %8.1f ms, ours %7.2f ms, ratio %.1f (bar 15: %s)\n",
                Name(ours.problem()).c_str(), best[0] * 1e3, best[1] * 1e3, best[0] / best[1],
                Verdict(best[0] / best[1] >= 15));
  }

  // One token against a long context.
  void Decode(int kv_heads, int head_dim) {
    AttentionCase ours(
        {.tokens = 16384, .query_begin = 16383, .kv_heads = kv_heads, .head_dim = head_dim});
    ours.Run(pool);
    ours.Check();
    const std::vector<uint64_t> buffer(ours.KvBytes() / sizeof(uint64_t), 1);
    constexpr int64_t kPieces = 16;
    std::vector<uint64_t> sums(kPieces);
    const auto read = [&] {
      const int64_t piece = static_cast<int64_t>(buffer.size()) / kPieces;
      pool.ParallelFor(kPieces, [&](int64_t n) {
        const auto begin = buffer.begin() + n * piece;
        sums[n] = std::accumulate(begin, begin + piece, uint64_t{0});
      });
    };
    const auto best = Best(pool, 2.0, {read, [&] { ours.Run(pool); }});
    STRUCTATTN_CHECK(sums[0] == buffer.size() / kPieces);
    const double bytes = 1e-9 * static_cast<double>(ours.KvBytes());
    std::printf(
        "one token, %s: %5.1f MB read at %5.1f GB/s, attention %5.1f GB/s, "
        "share %.2f (bar 0.80: %s)\n",
        Name(ours.problem()).c_str(), bytes * 1e3, bytes / best[0], bytes / best[1],
        best[0] / best[1], Verdict(best[0] / best[1] >= 0.8));
  }
};

void RunParts(Bench& bench, std::string_view part) {
  const auto wanted = [part](std::string_view name) { return part.empty() || part == name; };
  for (const int head_dim : {64, 128}) {
    if (wanted("causal")) bench.Causal({.head_dim = head_dim});
  }
  for (const DType dtype : {DType::kFloat32, DType::kFloat16}) {
    if (wanted("types")) bench.Causal({.dtype = dtype});
  }
  for (const int tokens : {4096, 16384}) {
    for (const int groups : {6, 16, 63}) {
      if (wanted("structured")) bench.Structured(tokens, groups, 64);
    }
  }
  for (const int head_dim : {64, 128}) {
    if (wanted("dense")) bench.Dense(16384, 16, head_dim);
  }
  for (const int head_dim : {64, 128}) {
    if (wanted("decode")) bench.Decode(8, head_dim);
    if (wanted("decode")) bench.Decode(2, head_dim);
  }
}

}  // namespace
}  // namespace structattn

int main(int argc, char** argv) {
  using namespace structattn;
  const c10::InferenceMode inference;
  ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 1);
  at::set_num_threads(pool.threads());
  Bench bench = {.pool = pool, .peak_gflops = FmaPeakGflops() * pool.threads()};
  std::printf("%s, %d threads, plain FMA peak %.1f GFLOP/s\n",
              std::string(AttentionKernelName(DeviceKind::kCpu)).c_str(), pool.threads(),
              bench.peak_gflops);
  RunParts(bench, argc > 2 ? argv[2] : "");
  return 0;
}
