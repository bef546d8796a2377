// The reference and the error bound that tests allow a kernel.
#include "tests/reference/attention.h"

#include <algorithm>
#include <cmath>

namespace structattn {
namespace {

// First-order rounding errors of a kernel that sums in float, with unit roundoff u. `magnitude` is
// the largest sum of |scale q k| over dims.
//
// A score is a chain of head_dim multiply-adds, and scaled (two roundings of the factor, one of the
// product): off by (head_dim + 4) u magnitude. As the exponent of a weight that is a relative
// error, to which come the subtraction of a maximum rounded up to a whole power of two
// ((2 magnitude + 1) u) and the exponential itself: 4 u, or 2^-13 in a kernel that rounds its
// weights to bfloat16, which adds 2^-8. Weight and denominator both carry all of it; the weighted
// sum and the denominator are chains of n additions, and one division ends it.
double RelativeBound(const HeadShape& shape, int keys, double magnitude) {
  const double u = std::ldexp(1.0, -24);
  double weight = u * ((shape.head_dim + 4) * magnitude + 2 * magnitude + 5);
  if (shape.kv_dtype == DType::kBfloat16) weight += std::ldexp(1.0, -8) + std::ldexp(1.0, -13);
  return 1.01 * (2 * weight + u * (2 * keys + 4));
}

// Weights and sums below this, as seen from the largest weight, may be flushed to zero.
constexpr double kFlushed = 0x1p-125;

}  // namespace

ReferenceRow ReferenceAttention(const SequenceTensors& sequence, const HeadShape& shape, int token,
                                int head) {
  const int dims = shape.head_dim;
  const int kv_head = head / (shape.heads / shape.kv_heads);
  const auto kv_row = [&](const std::vector<float>& tensor, int key) {
    return tensor.data() + (int64_t{key} * shape.kv_heads + kv_head) * dims;
  };
  const auto query_begin = sequence.query.begin() + (int64_t{token} * shape.heads + head) * dims;
  std::vector<float> query(query_begin, query_begin + dims);
  if (shape.kv_dtype == DType::kBfloat16) {
    for (float& x : query) x = ToFloat(FromFloat<Bfloat16>(x));
  }

  std::vector<int> keys;
  std::vector<double> scores;
  double magnitude = 0.0;
  for (int key = 0; key < sequence.structure.size(); ++key) {
    if (!sequence.Sees(token, key)) continue;
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

  const std::vector<double> zeros(dims, 0.0);
  ReferenceRow row = {.output = zeros,
                      .tolerance = zeros,
                      .keys = static_cast<int>(keys.size()),
                      .magnitude = magnitude,
                      .weighted = zeros,
                      .absolute = zeros};
  if (keys.empty()) return row;
  const double maximum = *std::max_element(scores.begin(), scores.end());
  double sum = 0.0;
  for (double& score : scores) sum += score = std::exp(score - maximum);
  const double bound = RelativeBound(shape, static_cast<int>(keys.size()), magnitude);
  for (size_t n = 0; n < keys.size(); ++n) {
    for (int dim = 0; dim < dims; ++dim) {
      const double value = kv_row(sequence.value, keys[n])[dim];
      const double term = scores[n] / sum * value;
      row.output[dim] += term;
      row.weighted[dim] += std::abs(term);
      row.absolute[dim] += std::abs(value);
      row.tolerance[dim] += std::abs(term) * bound + std::abs(value) * kFlushed;
    }
  }
  return row;
}

}  // namespace structattn
