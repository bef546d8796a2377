// The reference and the error bound that tests allow a float kernel.
#include "tests/reference/attention.h"

#include <algorithm>
#include <cmath>

namespace structattn {
namespace {

// First-order rounding errors of: a chain of head_dim float multiply-adds per score (query scaled
// before), score - max, exp, chains of n additions for the denominator and the weighted sum, one
// division. u is float's unit roundoff, `magnitude` the largest sum of |scale q k| over dims.
// A score is off by (head_dim + 2) u magnitude; as the exponent of a weight that is a relative
// error, to which come the subtraction's (2 u magnitude) and exp's (4 u). Weight and denominator
// both carry it.
double RelativeBound(int head_dim, int keys, double magnitude) {
  const double u = std::ldexp(1.0, -24);
  const double weight = u * ((head_dim + 2) * magnitude + 2 * magnitude + 4);
  return 1.01 * (2 * weight + u * (2 * keys + 4));
}

}  // namespace

ReferenceRow ReferenceAttention(const SequenceTensors& sequence, const HeadShape& shape, int token,
                                int head) {
  const int dims = shape.head_dim;
  const int kv_head = head / (shape.heads / shape.kv_heads);
  const auto kv_row = [&](const std::vector<float>& tensor, int key) {
    return tensor.data() + (int64_t{key} * shape.kv_heads + kv_head) * dims;
  };
  const float* query = sequence.query.data() + (int64_t{token} * shape.heads + head) * dims;

  std::vector<int> keys;
  std::vector<double> scores;
  double magnitude = 0.0;
  for (int key = 0; key < sequence.structure.size(); ++key) {
    if (!MaySee(sequence.structure, token, key)) continue;
    double score = 0.0;
    double absolute = 0.0;
    for (int dim = 0; dim < dims; ++dim) {
      const double product = double{query[dim]} * kv_row(sequence.key, key)[dim];
      score += product;
      absolute += std::abs(product);
    }
    keys.push_back(key);
    scores.push_back(score * shape.scale);
    magnitude = std::max(magnitude, absolute * shape.scale);
  }

  ReferenceRow row = {std::vector<double>(dims, 0.0), std::vector<double>(dims, 0.0)};
  if (keys.empty()) return row;
  const double maximum = *std::max_element(scores.begin(), scores.end());
  double sum = 0.0;
  for (double& score : scores) sum += score = std::exp(score - maximum);
  const double bound = RelativeBound(dims, static_cast<int>(keys.size()), magnitude);
  for (size_t n = 0; n < keys.size(); ++n) {
    for (int dim = 0; dim < dims; ++dim) {
      const double term = scores[n] / sum * kv_row(sequence.value, keys[n])[dim];
      row.output[dim] += term;
      row.tolerance[dim] += std::abs(term) * bound;
    }
  }
  return row;
}

}  // namespace structattn
