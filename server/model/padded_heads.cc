// See padded_heads.h.
#include "server/model/padded_heads.h"

#include <ATen/ATen.h>

#include <cmath>

namespace structattn {

PaddedHeads::PaddedHeads(int64_t head_dim)
    : head_dim_(head_dim), padded_dim_(PaddedDim(head_dim)) {}

// The dims of the halves of heads of `dims` dims that hold something: [rows, heads, 2, head_dim /
// 2].
at::Tensor PaddedHeads::Halves(const at::Tensor& heads, int64_t dims, int64_t rows) const {
  return heads.narrow(0, 0, rows)
      .view({rows, heads.size(1) / dims, 2, dims / 2})
      .narrow(3, 0, head_dim_ / 2);
}

void PaddedHeads::Pad(const at::Tensor& heads, at::Tensor& padded, int64_t rows) const {
  if (any()) Halves(padded, padded_dim_, rows).copy_(Halves(heads, head_dim_, rows));
}

void PaddedHeads::Strip(const at::Tensor& padded, at::Tensor& heads, int64_t rows) const {
  if (any()) Halves(heads, head_dim_, rows).copy_(Halves(padded, padded_dim_, rows));
}

// With s the sum of squares, d dims and p padded ones: 1 / sqrt(s / d + e) is sqrt(d / p) / sqrt(s
// / p + e d / p).
at::Tensor PaddedHeads::NormWeight(const at::Tensor& weight) const {
  if (!any() || !weight.defined()) return weight;
  at::Tensor padded = at::zeros({1, padded_dim_}, weight.options());
  const double share = static_cast<double>(head_dim_) / static_cast<double>(padded_dim_);
  Pad((weight * std::sqrt(share)).view({1, head_dim_}), padded, 1);
  return padded.flatten();
}

float PaddedHeads::NormEpsilon(double epsilon) const {
  return static_cast<float>(epsilon *
                            (static_cast<double>(head_dim_) / static_cast<double>(padded_dim_)));
}

}  // namespace structattn
