// Brings matrices of a checkpoint to the device through two host buffers of fixed size: while one
// is on its way, the other is filled with the next rows, in the model's dtype. So loading needs
// little host memory beside the mapped files, and neither side waits for the other. It is for
// devices other than the CPU; off CUDA the copies are plain ones.
#ifndef STRUCTATTN_SERVER_MODEL_WEIGHT_UPLOAD_H_
#define STRUCTATTN_SERVER_MODEL_WEIGHT_UPLOAD_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <cstdint>
#include <optional>
#include <span>

#include "kernels/context.h"
#include "kernels/linear/linear.h"

namespace structattn {

class WeightUpload {
 public:
  static constexpr int64_t kBufferBytes = int64_t{32} << 20;

  // `buffer_bytes` holds at least one element of any dtype.
  explicit WeightUpload(const Device& device, int64_t buffer_bytes = kBufferBytes);
  // Waits for the copies under way.
  ~WeightUpload();
  WeightUpload(const WeightUpload&) = delete;
  WeightUpload& operator=(const WeightUpload&) = delete;

  // The rows of `parts` (all with the same columns) stacked, as a tensor of `dtype` on the device.
  // Work given to the current stream later finds it complete; the parts are no longer needed.
  at::Tensor Stack(std::span<const MatrixView> parts, DType dtype);

 private:
  struct Buffer {
    at::Tensor bytes;
    std::optional<c10::Event> copied;  // CUDA: the device has it.
  };

  void Copy(const MatrixView& part, const at::Tensor& target);

  const Device device_;
  const int64_t buffer_bytes_;
  Buffer buffers_[2];
  int next_ = 0;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_WEIGHT_UPLOAD_H_
