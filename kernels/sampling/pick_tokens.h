// The next token of each row of logits, and its log-probability, without moving the logits: a row
// of 150,000 becomes eight bytes. It runs on devices other than the CPU. On the CPU,
// server/engine/sampling/sampler reads the logits where they are, and is the definition of every
// rule here. There are no penalties, biases or lists of best tokens: such rows are sampled on the
// host.
#ifndef STRUCTATTN_KERNELS_SAMPLING_PICK_TOKENS_H_
#define STRUCTATTN_KERNELS_SAMPLING_PICK_TOKENS_H_

#include <cstdint>

#include "kernels/context.h"

namespace structattn {

// How a row is picked: the given token, if there is one; else, with temperature 0, the most likely
// one (of equals the one with the smallest id); else one drawn after temperature, top-k, top-p and
// min-p, in this order.
struct PickRule {
  int32_t given = -1;  // An id, whose log-probability alone is wanted; -1 for none.
  float temperature = 0.0f;
  int32_t top_k = 0;  // 0 is off.
  float top_p = 1.0f;
  float min_p = 0.0f;    // At most 1.
  double uniform = 0.0;  // In [0, 1), the place in the cumulative distribution of what is left.
};

// What the softmax needs to know of a part, which is kLogitsPerPart neighbouring logits of a row.
struct LogitsPart {
  float largest;
  float sum;   // The sum of exp(logit - largest).
  int32_t id;  // The id of the first largest.
};
inline constexpr int64_t kLogitsPerPart = 4096;

constexpr int64_t LogitsParts(int64_t vocabulary) {
  return (vocabulary + kLogitsPerPart - 1) / kLogitsPerPart;
}

struct PickTokensParams {
  const float* logits = nullptr;    // [rows, vocabulary]
  const PickRule* rules = nullptr;  // [rows], or null for the most likely token of every row
  LogitsPart* parts = nullptr;      // [rows, LogitsParts(vocabulary)], overwritten
  int32_t* ids = nullptr;           // The picked tokens [rows]
  // Their log-probabilities [rows], under the softmax of the logits as they are. One is NaN when a
  // logit is NaN or +infinity, or all are -infinity; the id then means nothing.
  float* logprobs = nullptr;
  int64_t rows = 0;
  int64_t vocabulary = 0;  // Below 2^31.
};

// The device is not the CPU. The bits of a row's result depend on its logits and rule alone.
void PickTokens(const KernelContext& context, const PickTokensParams& params);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_SAMPLING_PICK_TOKENS_H_
