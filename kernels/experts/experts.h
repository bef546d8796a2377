// What a mixture of experts needs around its matrix products, on the CPU: the choice of a token's
// experts, the rows of a step in the order of experts, and the sum of what experts gave. The
// products themselves are kernels/linear's. CUDA has no kernels for it.
//
// A row's bits depend on its own numbers alone, never on which other rows chose the same experts.
#ifndef STRUCTATTN_KERNELS_EXPERTS_EXPERTS_H_
#define STRUCTATTN_KERNELS_EXPERTS_EXPERTS_H_

#include <cstdint>
#include <vector>

#include "kernels/thread_pool.h"

namespace structattn {

struct ChooseExpertsParams {
  const float* logits = nullptr;  // [rows, stride]: of a row's experts, and what else is behind.
  int64_t stride = 0;
  int64_t rows = 0;
  int32_t experts = 0;
  int32_t chosen = 0;        // Of a row; at most `experts`.
  bool normalizes = false;   // The weights of a row are divided by their sum.
  int32_t* ids = nullptr;    // [rows, chosen]: ascending in a row.
  float* weights = nullptr;  // [rows, chosen]
};

// The experts with a row's largest logits, and their shares of the softmax over all logits, in
// float. Of equal logits the lower expert wins.
void ChooseExperts(ThreadPool& pool, const ChooseExpertsParams& params);

// The pairs of a row and an expert that it chose, sorted by expert and then by row.
struct ExpertPairs {
  struct Range {
    int32_t expert;
    int64_t begin;  // Of pairs; never empty.
    int64_t end;
  };
  std::vector<Range> ranges;    // Of the experts that any row chose, ascending.
  std::vector<int32_t> rows;    // [pairs]: the row of each pair.
  std::vector<int32_t> places;  // [rows, chosen]: where the pair of ChooseExperts' ids[i] is.
};

// `pairs` is overwritten. The params are those that were chosen with.
void SortByExpert(const ChooseExpertsParams& params, ExpertPairs* pairs);

// to[i] = from[rows[i]], rows of `row_bytes`.
struct GatherRowsParams {
  const void* from = nullptr;
  const int32_t* rows = nullptr;  // [count]
  void* to = nullptr;
  int64_t count = 0;
  int64_t row_bytes = 0;
};
void GatherRows(ThreadPool& pool, const GatherRowsParams& params);

struct SumExpertsParams {
  const float* outputs = nullptr;   // [pairs, columns]: what experts gave.
  const int32_t* places = nullptr;  // [rows, chosen]: ExpertPairs::places.
  const float* weights = nullptr;   // [rows, chosen]
  int32_t chosen = 0;
  // What the expert that all rows share gave, or null, and the logits of its sigmoid gate.
  const float* shared = nullptr;       // [rows, columns]
  const float* shared_gate = nullptr;  // [rows, gate_stride]
  int64_t gate_stride = 0;
  float* sum = nullptr;  // [rows, columns], added to.
  int64_t rows = 0;
  int64_t columns = 0;
};

// sum += (weight * output of the row's experts, ascending, from zero) + sigmoid(gate) * shared, in
// the order of Hugging Face's eager experts.
void SumExperts(ThreadPool& pool, const SumExpertsParams& params);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_EXPERTS_EXPERTS_H_
