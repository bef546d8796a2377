// What softmax and the greedy choice need to know of a row of logits on the CPU, in three passes at
// memory speed. No rule of sampling is applied here.
#ifndef STRUCTATTN_KERNELS_SAMPLING_SUMMARIZE_LOGITS_H_
#define STRUCTATTN_KERNELS_SAMPLING_SUMMARIZE_LOGITS_H_

#include <cstdint>
#include <span>

namespace structattn {

struct LogitsSummary {
  // log(sum of e^logit), where the sum's relative error is below 1e-6. It is not finite when a
  // logit is NaN or +infinity, or all are -infinity; the id then means nothing.
  double log_sum_exp;
  int32_t best_id;  // The id of the first largest.
};

// `logits` is not empty. The bits depend on the row and the instruction set only.
LogitsSummary SummarizeLogits(std::span<const float> logits);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_SAMPLING_SUMMARIZE_LOGITS_H_
