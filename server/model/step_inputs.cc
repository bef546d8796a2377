// See step_inputs.h.
#include "server/model/step_inputs.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <span>
#include <utility>

#include "kernels/check.h"
#include "server/model/device.h"

namespace structattn {
namespace {

constexpr size_t kAlignment = 256;  // Each array has it, as cudaMalloc gives it.

// A split of no tile, beyond every key.
constexpr KeySplit kEmptySplit = {.tile_begin = 0, .tile_count = 0, .rank_begin = 1 << 30};
static_assert(kEmptySplit.rank_begin % kSplitKeys == 0);

int32_t NextPower(int32_t count) {
  return static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(count)));
}

// `count` or the next larger size. Sizes are powers of two up to 8, and from there four to each
// doubling: 10, 12, 14, 16, 20, 24, ...
int32_t PaddedCount(int32_t count) {
  const int32_t power = NextPower(count);
  const int32_t step = power / 8;
  return power <= 8 ? power : (count + step - 1) / step * step;
}

// Lays arrays one behind the other, at the same places on the host and on the device. Without a
// host address it only measures.
class Packer {
 public:
  Packer(char* host, const char* device) : host_(host), device_(device) {}

  size_t bytes() const { return used_; }

  // Puts `values`, then `padding` up to `capacity` elements, and returns where they will lie on the
  // device.
  template <typename T>
  const T* Put(std::span<const T> values, int64_t capacity, const T& padding) {
    const auto [host, device] = Next<T>(capacity);
    if (host_ != nullptr) {
      STRUCTATTN_CHECK(static_cast<int64_t>(values.size()) <= capacity);
      std::fill(std::ranges::copy(values, host).out, host + capacity, padding);
    }
    return device;
  }

  // Puts rows of `stride` values into rows of `wide` values.
  const int32_t* PutRows(std::span<const int32_t> values, int32_t stride, int32_t rows,
                         int32_t wide) {
    const auto [host, device] = Next<int32_t>(int64_t{rows} * wide);
    if (host_ != nullptr) {
      std::fill_n(host, int64_t{rows} * wide, -1);
      for (size_t begin = 0, row = 0; begin < values.size(); begin += stride, ++row) {
        std::ranges::copy(values.subspan(begin, stride), host + row * wide);
      }
    }
    return device;
  }

 private:
  template <typename T>
  std::pair<T*, const T*> Next(int64_t count) {
    const size_t at = used_;
    used_ += (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    if (host_ == nullptr) return {nullptr, nullptr};
    return {reinterpret_cast<T*>(host_ + at), reinterpret_cast<const T*>(device_ + at)};
  }

  char* const host_;
  const char* const device_;
  size_t used_ = 0;
};

// The decode tiles, and more that see nothing for the rows from `tokens` on, which hold nothing.
// Each of these has a row of its own.
std::vector<QueryTile> PadGenerated(const WorkList& work, int32_t tokens, int32_t count) {
  std::vector<QueryTile> generated = work.generated;
  for (int32_t row = tokens; static_cast<int32_t>(generated.size()) < count; ++row) {
    generated.push_back({.sequence = 0,
                         .row_begin = row,
                         .query_begin = 0,
                         .query_count = 1,
                         .interval_begin = 0,
                         .interval_end = 0});
  }
  return generated;
}

// `work` is that of a batch of `tokens` rows.
WorkInputs PackWork(const WorkList& work, int64_t tokens, const WorkShape& shape, Packer* packer) {
  const std::vector<QueryTile> generated =
      PadGenerated(work, static_cast<int32_t>(tokens), shape.generated);
  return {.shape = shape,
          .tiles = packer->Put<QueryTile>(work.tiles, shape.tiles, {}),
          .intervals = packer->Put<KeyInterval>(work.intervals, shape.intervals, {}),
          .generated = packer->Put<QueryTile>(generated, shape.generated, {}),
          .splits = packer->Put<KeySplit>(work.splits, shape.splits, kEmptySplit)};
}

// Packs all that a step's buffer holds, in the only order.
StepInputs Pack(const StepBatch& batch, const StepShape& shape, const RotaryAngles& angles,
                Packer* packer) {
  return {
      .shape = shape,
      .token_ids = packer->Put<int32_t>(batch.token_ids, shape.rows, 0),
      .slots = packer->Put<int64_t>(batch.slots, shape.rows, -1),
      .block_tables = packer->PutRows(batch.block_tables, batch.block_table_stride, shape.sequences,
                                      shape.block_table_stride),
      .work = PackWork(batch.work, batch.tokens(), shape.work, packer),
      .windowed_work = PackWork(batch.windowed_work, batch.tokens(), shape.windowed_work, packer),
      .logit_rows = packer->Put<int32_t>(batch.logit_rows, shape.logit_rows, 0),
      .cosine = packer->Put<float>(angles.cosine(), shape.rows * angles.half(), 0.0f),
      .sine = packer->Put<float>(angles.sine(), shape.rows * angles.half(), 0.0f)};
}

size_t PackedBytes(const StepShape& shape, const RotaryAngles& angles) {
  Packer packer(nullptr, nullptr);
  Pack({}, shape, angles, &packer);
  return packer.bytes();
}

WorkShape ShapeOf(const WorkList& work) {
  return {.tiles = static_cast<int32_t>(work.tiles.size()),
          .intervals = static_cast<int32_t>(work.intervals.size()),
          .generated = static_cast<int32_t>(work.generated.size()),
          .splits = static_cast<int32_t>(work.splits.size()),
          .partials = work.partials};
}

// As PaddedShape, for one of the lists; `rows` is the padded number of rows.
WorkShape PaddedWork(const WorkShape& shape, int32_t rows) {
  if (shape == WorkShape()) return shape;
  return {.tiles = 0,
          .intervals = NextPower(shape.intervals),
          .generated = rows,
          .splits = PaddedCount(shape.splits),
          .partials = NextPower(shape.partials)};
}

WorkInputs AliasWork(const WorkList& work) {
  return {.shape = ShapeOf(work),
          .tiles = work.tiles.data(),
          .intervals = work.intervals.data(),
          .generated = work.generated.data(),
          .splits = work.splits.data()};
}

}  // namespace

StepShape ShapeOf(const StepBatch& batch) {
  const int32_t stride = batch.block_table_stride;
  return {.rows = static_cast<int32_t>(batch.tokens()),
          .sequences = stride == 0 ? 0 : static_cast<int32_t>(batch.block_tables.size()) / stride,
          .block_table_stride = stride,
          .work = ShapeOf(batch.work),
          .windowed_work = ShapeOf(batch.windowed_work),
          .logit_rows = static_cast<int32_t>(batch.logit_rows.size())};
}

bool IsDecodeShape(const StepShape& shape) {
  return shape.rows > 0 && shape.work.generated == shape.rows && shape.logit_rows == shape.rows;
}

StepShape PaddedShape(const StepShape& shape) {
  const int32_t rows = PaddedCount(shape.rows);
  return {.rows = rows,
          .sequences = rows,
          .block_table_stride = NextPower(shape.block_table_stride),
          .work = PaddedWork(shape.work, rows),
          .windowed_work = PaddedWork(shape.windowed_work, rows),
          .logit_rows = rows};
}

StepUploader::StepUploader(const Device& device, RotaryAngles angles)
    : device_(device), angles_(std::move(angles)) {}

bool StepUploader::Reserve(const StepShape& shape) {
  if (device_.kind == DeviceKind::kCpu) return false;
  const size_t bytes = PackedBytes(shape, angles_);
  if (buffer_.defined() && bytes <= buffer_.nbytes()) return false;
  WaitUntilCopied();
  const int64_t capacity = static_cast<int64_t>(std::bit_ceil(bytes));
  staging_ = at::empty({capacity}, HostStaging(device_.kind));
  buffer_ = at::empty({capacity}, at::dtype(at::kByte).device(ToTorchDevice(device_)));
  return true;
}

StepInputs StepUploader::Upload(const StepBatch& batch, const StepShape& shape) {
  angles_.Compute(batch.positions, batch.rope_lengths);
  if (device_.kind == DeviceKind::kCpu) {
    STRUCTATTN_CHECK(shape == ShapeOf(batch));
    return Alias(batch);
  }
  WaitUntilCopied();
  Packer packer(static_cast<char*>(staging_.mutable_data_ptr()),
                static_cast<const char*>(buffer_.const_data_ptr()));
  const StepInputs inputs = Pack(batch, shape, angles_, &packer);
  STRUCTATTN_CHECK(packer.bytes() <= buffer_.nbytes());
  const int64_t bytes = static_cast<int64_t>(packer.bytes());
  buffer_.narrow(0, 0, bytes).copy_(staging_.narrow(0, 0, bytes), /*non_blocking=*/true);
  RecordOnCurrentStream(device_.kind, &copied_);
  return inputs;
}

StepInputs StepUploader::Alias(const StepBatch& batch) const {
  return {.shape = ShapeOf(batch),
          .token_ids = batch.token_ids.data(),
          .slots = batch.slots.data(),
          .block_tables = batch.block_tables.data(),
          .work = AliasWork(batch.work),
          .windowed_work = AliasWork(batch.windowed_work),
          .logit_rows = batch.logit_rows.data(),
          .cosine = angles_.cosine().data(),
          .sine = angles_.sine().data()};
}

void StepUploader::WaitUntilCopied() {
  if (copied_.has_value()) copied_->synchronize();
}

}  // namespace structattn
