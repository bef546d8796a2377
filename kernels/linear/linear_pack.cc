// Packing of weights: stacking, conversion and the layout that linear-inl.h shows.
// Called when a model is loaded, through PackedWeight::Pack; never while serving.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/check.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/linear_kernel.h"

namespace structattn {
namespace {

template <typename From, typename To>
void Convert(const void* row, int64_t begin, int64_t count, To* to) {
  const From* from = static_cast<const From*>(row) + begin;
  if constexpr (std::is_same_v<From, To>) {
    std::memcpy(to, from, sizeof(To) * count);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = FromFloat<To>(ToFloat(from[i]));
  }
}

// Row `row` of the stacked views; data is null past the last one.
struct SourceRow {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
};

SourceRow FindRow(std::span<const MatrixView> views, int64_t row) {
  for (const MatrixView& view : views) {
    if (row < view.rows) {
      const int64_t offset = row * view.columns * static_cast<int64_t>(ByteSize(view.dtype));
      return {.data = static_cast<const char*>(view.data) + offset, .dtype = view.dtype};
    }
    row -= view.rows;
  }
  return {};
}

// Inputs [begin, begin + count) of one output as T; zeros for an absent output.
template <typename T>
void ConvertInputs(const SourceRow& source, int64_t begin, int64_t count, T* to) {
  if (source.data == nullptr) {
    std::memset(to, 0, sizeof(T) * count);
    return;
  }
  switch (source.dtype) {
    case DType::kFloat32:
      return Convert<float>(source.data, begin, count, to);
    case DType::kBfloat16:
      return Convert<Bfloat16>(source.data, begin, count, to);
    case DType::kFloat16:
      return Convert<Float16>(source.data, begin, count, to);
  }
}

// Of one panel, with its padding.
int64_t Steps(const LinearKernel& kernel, int64_t inputs) {
  const int64_t multiple = int64_t{kernel.inputs_per_step} * kernel.steps_multiple;
  return (inputs + multiple - 1) / multiple * kernel.steps_multiple;
}

// One panel, in blocks of inputs that stay in the first-level cache while their cells are spread.
template <typename T, int kInputsPerStep>
void PackPanel(const LinearKernel& kernel, std::span<const MatrixView> views, int64_t first_output,
               T* panel) {
  constexpr int64_t kBlockInputs = 128;  // No padding is longer.
  const int64_t inputs = views[0].columns;
  const int64_t stride = static_cast<int64_t>(kernel.panel_outputs) * kInputsPerStep;
  for (int64_t begin = 0; begin < inputs; begin += kBlockInputs) {
    const int64_t count = std::min(kBlockInputs, inputs - begin);
    const int64_t steps =
        std::min(kBlockInputs / kInputsPerStep, Steps(kernel, inputs) - begin / kInputsPerStep);
    T* block = panel + begin / kInputsPerStep * stride;
    for (int output = 0; output < kernel.panel_outputs; ++output) {
      T row[kBlockInputs] = {};
      ConvertInputs(FindRow(views, first_output + output), begin, count, row);
      T* to = block + output * kInputsPerStep;
      for (int64_t step = 0; step < steps; ++step) {
        std::memcpy(to + step * stride, row + step * kInputsPerStep, sizeof(T) * kInputsPerStep);
      }
    }
  }
}

template <typename T>
void PackPanel(const LinearKernel& kernel, std::span<const MatrixView> views, int64_t first_output,
               void* panel) {
  if (kernel.inputs_per_step == 2) {
    PackPanel<T, 2>(kernel, views, first_output, static_cast<T*>(panel));
  } else {
    PackPanel<T, 1>(kernel, views, first_output, static_cast<T*>(panel));
  }
}

void PackPanel(const LinearKernel& kernel, std::span<const MatrixView> views, int64_t first_output,
               void* panel) {
  switch (kernel.dtype) {
    case DType::kFloat32:
      return PackPanel<float>(kernel, views, first_output, panel);
    case DType::kBfloat16:
      return PackPanel<Bfloat16>(kernel, views, first_output, panel);
    case DType::kFloat16:
      return PackPanel<Float16>(kernel, views, first_output, panel);
  }
}

}  // namespace

PackedWeight PackedWeight::PackFor(const LinearKernel& kernel, std::span<const MatrixView> views,
                                   const PackTarget& target) {
  STRUCTATTN_CHECK(!views.empty() && views[0].columns > 0);
  STRUCTATTN_CHECK(target.dtype == kernel.dtype && kernel.run != nullptr);
  PackedWeight weight;
  weight.kernel_ = &kernel;
  weight.inputs_ = views[0].columns;
  for (const MatrixView& view : views) {
    STRUCTATTN_CHECK(view.columns == weight.inputs_);
    weight.outputs_ += view.rows;
  }
  const int64_t steps = Steps(kernel, weight.inputs_);
  const int64_t panels = (weight.outputs_ + kernel.panel_outputs - 1) / kernel.panel_outputs;
  const int64_t panel_bytes = steps * kernel.inputs_per_step * kernel.panel_outputs *
                              static_cast<int64_t>(ByteSize(kernel.dtype));
  weight.bytes_ = panels * panel_bytes;
  weight.data_ = target.arena.Allocate(weight.bytes_);
  char* data = static_cast<char*>(weight.data_.get());
  target.pool.ParallelFor(panels, [&](int64_t panel) {
    PackPanel(kernel, views, panel * kernel.panel_outputs, data + panel * panel_bytes);
  });
  return weight;
}

}  // namespace structattn
