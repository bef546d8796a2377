// Heads whose dims are no multiple of what the kernels take lie in longer ones: behind each half of
// a head stand zeros, which change no score and no value, and the halves rotate as before.
#ifndef STRUCTATTN_SERVER_MODEL_PADDED_HEADS_H_
#define STRUCTATTN_SERVER_MODEL_PADDED_HEADS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace structattn {

class PaddedHeads {
 public:
  explicit PaddedHeads(int64_t head_dim);

  // The kernels take multiples of 16 dims.
  static constexpr int64_t PaddedDim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

  int64_t head_dim() const { return head_dim_; }
  int64_t padded_dim() const { return padded_dim_; }
  bool any() const { return padded_dim_ != head_dim_; }

  // Copies the first `rows` rows of `heads` [rows, n head_dim] to `padded` [rows, n padded_dim],
  // whose zeros stay as they are, or back. Without padding both are one tensor, and nothing is
  // copied.
  void Pad(const at::Tensor& heads, at::Tensor& padded, int64_t rows) const;
  void Strip(const at::Tensor& padded, at::Tensor& heads, int64_t rows) const;

  // A norm's weight [head_dim] and epsilon for padded heads: the mean of squares is over more dims
  // there, of which the new ones are zero.
  at::Tensor NormWeight(const at::Tensor& weight) const;
  float NormEpsilon(double epsilon) const;

 private:
  at::Tensor Halves(const at::Tensor& heads, int64_t dims, int64_t rows) const;

  int64_t head_dim_;
  int64_t padded_dim_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_PADDED_HEADS_H_
