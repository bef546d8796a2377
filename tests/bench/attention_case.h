// One attention problem with its cache and work-list, for benchmarks: builds it, runs the CPU
// kernel on it, checks rows against the double-precision reference, counts what is visible.
// Never measures time and knows no tensor framework.
#ifndef STRUCTATTN_TESTS_BENCH_ATTENTION_CASE_H_
#define STRUCTATTN_TESTS_BENCH_ATTENTION_CASE_H_

#include <cstdint>
#include <vector>

#include "hwy/aligned_allocator.h"
#include "kernels/attention/attention.h"
#include "tests/reference/attention.h"

namespace structattn {

struct AttentionProblem {
  RulePreset preset = RulePreset::kCausal;
  int groups = 1;  // Of equal length; one group is group 1, several start at 1 (SHARED at 0).
  int tokens = 4096;
  int query_begin = 0;  // Tokens before it are cached.
  DType dtype = DType::kBfloat16;
  int heads = 8;
  int kv_heads = 8;
  int head_dim = 64;
};

class AttentionCase {
 public:
  explicit AttentionCase(const AttentionProblem& problem);

  void Run(ThreadPool& pool);
  // Stops the program if rows of the last Run are not what the reference says.
  void Check() const;

  // Pairs of query token and key that the rule lets see each other.
  int64_t VisiblePairs() const;
  // The same rounded up to what the kernel computes: bands of rows, each up to the last key group
  // that its last row sees.
  int64_t TilePairs() const;
  int64_t KvBytes() const { return 2 * ByteSize(problem_.dtype) * key_elements_; }

  const AttentionProblem& problem() const { return problem_; }
  const SequenceTensors& sequence() const { return sequence_; }

 private:
  AttentionParams Params() const;
  void Fill(int heads, std::vector<float>* tensor);
  void WriteCache();
  void CheckRow(int token) const;

  const AttentionProblem problem_;
  SequenceTensors sequence_;
  uint64_t state_ = 1;
  int64_t key_elements_ = 0;
  hwy::AlignedFreeUniquePtr<char[]> key_;  // Aligned as the server's tensors are.
  hwy::AlignedFreeUniquePtr<char[]> value_;
  std::vector<int32_t> table_;
  hwy::AlignedFreeUniquePtr<char[]> output_;  // Of the cache's type, as the server has it.
  WorkList work_;
};

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_BENCH_ATTENTION_CASE_H_
