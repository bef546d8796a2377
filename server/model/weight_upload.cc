// See weight_upload.h.
#include "server/model/weight_upload.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "kernels/check.h"
#include "server/model/device.h"

namespace structattn {

WeightUpload::WeightUpload(const Device& device, int64_t buffer_bytes)
    : device_(device), buffer_bytes_(buffer_bytes) {
  for (Buffer& buffer : buffers_) {
    buffer.bytes = at::empty({buffer_bytes}, HostStaging(device.kind));
  }
}

WeightUpload::~WeightUpload() {
  for (const Buffer& buffer : buffers_) {
    if (buffer.copied.has_value()) buffer.copied->synchronize();
  }
}

at::Tensor WeightUpload::Stack(std::span<const MatrixView> parts, DType dtype) {
  STRUCTATTN_CHECK(!parts.empty());
  int64_t rows = 0;
  for (const MatrixView& part : parts) rows += part.rows;
  const int64_t columns = parts.front().columns;
  at::Tensor stacked = at::empty(
      {rows, columns}, at::TensorOptions(ToTorchDevice(device_)).dtype(ToScalarType(dtype)));
  int64_t row = 0;
  for (const MatrixView& part : parts) {
    STRUCTATTN_CHECK(part.columns == columns);
    Copy(part, stacked.narrow(0, row, part.rows).view({-1}));
    row += part.rows;
  }
  return stacked;
}

// `target` [part.rows * part.columns]
void WeightUpload::Copy(const MatrixView& part, const at::Tensor& target) {
  const int64_t count = target.numel();
  const at::Tensor source =
      at::from_blob(const_cast<void*>(part.data), {count}, ToScalarType(part.dtype));
  const int64_t most = buffer_bytes_ / target.element_size();
  for (int64_t begin = 0; begin < count; begin += most) {
    const int64_t length = std::min(most, count - begin);
    Buffer& buffer = buffers_[next_];
    next_ = 1 - next_;
    if (buffer.copied.has_value()) buffer.copied->synchronize();
    at::Tensor filled =
        buffer.bytes.narrow(0, 0, length * target.element_size()).view(target.scalar_type());
    filled.copy_(source.narrow(0, begin, length));
    target.narrow(0, begin, length).copy_(filled, /*non_blocking=*/true);
    RecordOnCurrentStream(device_.kind, &buffer.copied);
  }
}

}  // namespace structattn
