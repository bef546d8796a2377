// See experts.h. The loops are plain: routers are small, and memory binds the rest.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/experts/experts.h"
#include "kernels/parallel_rows.h"

namespace structattn {
namespace {

// The experts with the largest logits, from the largest down; of equal ones the lower comes first.
// A logit that is not a number makes every weight of its row one, whichever experts are named.
void FindLargest(const float* logits, int32_t experts, int32_t chosen, int32_t* ids) {
  int32_t count = 0;
  for (int32_t expert = 0; expert < experts; ++expert) {
    if (count == chosen && !(logits[expert] > logits[ids[count - 1]])) continue;
    int32_t at = count < chosen ? count++ : count - 1;
    for (; at > 0 && logits[expert] > logits[ids[at - 1]]; --at) ids[at] = ids[at - 1];
    ids[at] = expert;
  }
}

void ChooseRow(const ChooseExpertsParams& params, int64_t row) {
  const float* const logits = params.logits + row * params.stride;
  int32_t* const ids = params.ids + row * params.chosen;
  float* const weights = params.weights + row * params.chosen;
  FindLargest(logits, params.experts, params.chosen, ids);

  const float largest = logits[ids[0]];
  float total = 0.0f;
  for (int32_t expert = 0; expert < params.experts; ++expert) {
    total += std::exp(logits[expert] - largest);
  }
  // Summed from the largest down, as Hugging Face does.
  float chosen_total = 0.0f;
  for (int32_t i = 0; i < params.chosen; ++i) {
    chosen_total += std::exp(logits[ids[i]] - largest) / total;
  }
  std::sort(ids, ids + params.chosen);
  for (int32_t i = 0; i < params.chosen; ++i) {
    weights[i] = std::exp(logits[ids[i]] - largest) / total;
    if (params.normalizes) weights[i] /= chosen_total;
  }
}

void SumRow(const SumExpertsParams& params, int64_t row) {
  const int32_t* const places = params.places + row * params.chosen;
  const float* const weights = params.weights + row * params.chosen;
  const float* const shared =
      params.shared == nullptr ? nullptr : params.shared + row * params.columns;
  const float gate = shared == nullptr
                         ? 0.0f
                         : 1.0f / (1.0f + std::exp(-params.shared_gate[row * params.gate_stride]));
  float* const sum = params.sum + row * params.columns;
  // So many columns at a time stay in registers and the first-level cache.
  constexpr int64_t kColumns = 256;
  for (int64_t begin = 0; begin < params.columns; begin += kColumns) {
    const int64_t count = std::min(kColumns, params.columns - begin);
    float mixed[kColumns] = {};
    for (int32_t i = 0; i < params.chosen; ++i) {
      const float* const output = params.outputs + places[i] * params.columns + begin;
      for (int64_t j = 0; j < count; ++j) mixed[j] += weights[i] * output[j];
    }
    if (shared != nullptr) {
      for (int64_t j = 0; j < count; ++j) mixed[j] += gate * shared[begin + j];
    }
    for (int64_t j = 0; j < count; ++j) sum[begin + j] += mixed[j];
  }
}

}  // namespace

void ChooseExperts(ThreadPool& pool, const ChooseExpertsParams& params) {
  ParallelForRows(pool, params.rows, int64_t{4} * params.experts, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) ChooseRow(params, row);
  });
}

void SortByExpert(const ChooseExpertsParams& params, ExpertPairs* pairs) {
  const int64_t count = params.rows * params.chosen;
  pairs->ranges.clear();
  pairs->rows.resize(count);
  pairs->places.resize(count);
  std::vector<int64_t> next(params.experts, 0);  // First how many pairs, then the next one's place.
  for (int64_t i = 0; i < count; ++i) ++next[params.ids[i]];
  int64_t end = 0;
  for (int32_t expert = 0; expert < params.experts; ++expert) {
    const int64_t begin = end;
    end += next[expert];
    next[expert] = begin;
    if (begin < end) pairs->ranges.push_back({expert, begin, end});
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t place = next[params.ids[i]]++;
    pairs->places[i] = static_cast<int32_t>(place);
    pairs->rows[place] = static_cast<int32_t>(i / params.chosen);
  }
}

void GatherRows(ThreadPool& pool, const GatherRowsParams& params) {
  const auto* const from = static_cast<const char*>(params.from);
  auto* const to = static_cast<char*>(params.to);
  ParallelForRows(pool, params.count, params.row_bytes / 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(to + i * params.row_bytes, from + params.rows[i] * params.row_bytes,
                  params.row_bytes);
    }
  });
}

void SumExperts(ThreadPool& pool, const SumExpertsParams& params) {
  ParallelForRows(pool, params.rows, params.columns * (params.chosen + 1),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t row = begin; row < end; ++row) SumRow(params, row);
                  });
}

}  // namespace structattn
