// How far the CPU's and the emulated kernels' log-probabilities may lie apart in bfloat16.
#ifndef STRUCTATTN_TESTS_SERVER_EMULATED_TOLERANCE_H_
#define STRUCTATTN_TESTS_SERVER_EMULATED_TOLERANCE_H_

#include <cmath>

namespace structattn {

// For two implementations that both compute in float and store in bfloat16. A stored value has a
// relative error below u = 2^-8; its root mean square is 0.42 u (uniform error, significands
// distributed as 1 / m). To first order
// - a dot product of many terms passes such independent errors on unchanged, relative to its own
//   size, and the residual stream does not enlarge them;
// - the softmax's relative error is the absolute one of its scores: with scores of root mean square
//   s, four stored values (the input of q and of k, q, k) give s^2 each;
// - four more per layer meet the values (the input of v, v, the softmax's weights, the attention's
//   output), three the MLP (its input in gate and up, the activation), and one the output matrix.
// So a logit's error is about 0.42 u sqrt(L (4 s^2 + 7) + 1) times the root mean square of the
// logits, on each of two sides that err independently at worst; six standard deviations leave none
// of 10^4 values outside by chance.
inline double Bfloat16LogprobTolerance(int layers, double score_rms, double logit_rms) {
  const double stored_values = layers * (4.0 * score_rms * score_rms + 7.0) + 1.0;
  return 6.0 * std::sqrt(2.0) * 0.42 * 0x1p-8 * std::sqrt(stored_values) * logit_rms;
}

// Of models with RandomCheckpoint's weights. Its matrices have a gain of 2, its norms' weights a
// root mean square of 1.04: so logits have one of 2.09, and so have q and k, or 1.04 where they
// are normalised, and scores the square of that.
inline constexpr double kLogitRms = 2.09;
inline constexpr double kLlamaScoreRms = 4.37;
inline constexpr double kQwen3ScoreRms = 1.09;

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_SERVER_EMULATED_TOLERANCE_H_
