// LinearCpu: the choice of a kernel for this CPU, and the cut of a call into items. It multiplies
// nothing itself: see linear-inl.h and quantized_dot.cc.
#include <algorithm>
#include <utility>

#include "kernels/linear/linear.h"
#include "kernels/linear/linear_kernel.h"

namespace structattn::linear {
namespace {

// The rows of a call are cut into items of nearly equal size, in multiples of kBand: into as few as
// the kernel can take, or more where threads outnumber panels.
class RowItems {
 public:
  RowItems(int64_t rows, int64_t panels, int threads, const LinearKernel& kernel) : rows_(rows) {
    const int64_t least = (rows + kernel.item_rows - 1) / kernel.item_rows;
    const int64_t most = (rows + kItemRows - 1) / kItemRows;
    count_ = std::clamp((4 * threads + panels - 1) / panels, least, std::max(least, most));
  }

  int64_t count() const { return count_; }

  int64_t Begin(int64_t item) const {
    return std::min(rows_, (rows_ * item / count_ + kBand - 1) / kBand * kBand);
  }

 private:
  static constexpr int kBand = 32;
  static_assert(kItemRows % kBand == 0);  // So no item is longer than its kernel's.

  int64_t rows_;
  int64_t count_;
};

// How the panels of a weight are cut into items. With one item of rows, each thread gets a stream
// of panels, all of equal length: memory gives most to those, and many rows pass them while they
// stay in a cache. What is left, in small items, makes up for threads that came late. With more
// items of rows, items are as many as panels that share the staging of inputs, and fewer where
// there would be too few of them. Quantized panels are small, and staging for them costs more.
class PanelItems {
 public:
  PanelItems(int64_t panels, int64_t row_items, int threads, bool quantized) : panels_(panels) {
    if (row_items == 1) {
      streams_ = threads;
      stream_ = panels * 31 / 32 / threads;
      small_ = std::clamp<int64_t>((panels - streams_ * stream_) / (4 * threads), 1, kMacroPanels);
    } else {
      small_ = std::clamp<int64_t>(panels * row_items / ((quantized ? 4 : 8) * threads), 1,
                                   quantized ? panels : kMacroPanels);
    }
  }

  int64_t count() const { return streams_ + (panels_ - streams_ * stream_ + small_ - 1) / small_; }

  // The first panel of an item and the one behind its last.
  std::pair<int64_t, int64_t> operator[](int64_t item) const {
    if (item < streams_) return {item * stream_, (item + 1) * stream_};
    const int64_t begin = streams_ * stream_ + (item - streams_) * small_;
    return {begin, std::min(panels_, begin + small_)};
  }

 private:
  int64_t panels_;
  int64_t streams_ = 0;
  int64_t stream_ = 0;  // Panels of one stream; 0 where there are fewer panels than threads.
  int64_t small_ = 1;
};

}  // namespace

const LinearKernel& BestLinearKernel(DType dtype) {
  const auto of_dtype = [dtype](const LinearKernel& kernel) { return kernel.dtype == dtype; };
  const auto best = std::ranges::find_if(Bfloat16Kernels(), of_dtype);
  if (best != Bfloat16Kernels().end()) return *best;
  return *std::ranges::find_if(FloatKernels(), of_dtype);
}

const LinearKernel& BestQuantizedKernel(DType dtype) {
  return *std::ranges::find_if(FloatKernels(), [dtype](const LinearKernel& kernel) {
    return kernel.dtype == dtype && kernel.run_quantized != nullptr;
  });
}

void LinearCpu(ThreadPool& pool, const LinearParams& params) {
  const LinearWeight& weight = params.weight;
  const LinearKernel& kernel = *weight.kernel;
  const bool quantized = weight.kind == WeightKind::kQuantized;
  if (params.rows == 0) return;
  const int64_t panels = (weight.outputs + kernel.panel_outputs - 1) / kernel.panel_outputs;
  const RowItems rows(params.rows, panels, pool.threads(), kernel);
  const PanelItems panel_items(panels, rows.count(), pool.threads(), quantized);
  const LinearItem whole = {
      .input = params.input,
      .panels = weight.panels,
      .format = weight.format,
      .bias = params.bias,
      .output = params.output,
      .accumulate = params.accumulate,
      .inputs = weight.inputs,
      .units = weight.panel_units,
      .outputs = weight.outputs,
      .output_stride = params.output_stride == 0 ? weight.outputs : params.output_stride,
      .panel_bytes = weight.panel_bytes,
      .row_begin = 0,
      .row_end = params.rows};
  const auto run = quantized ? kernel.run_quantized : kernel.run;
  pool.ParallelFor(rows.count() * panel_items.count(), [&](int64_t index) {
    const int64_t row_item = index % rows.count();  // Neighbours in time share panels.
    const auto [begin, end] = panel_items[index / rows.count()];
    LinearItem item = whole;
    item.row_begin = rows.Begin(row_item);
    item.row_end = rows.Begin(row_item + 1);
    if (begin == end || item.row_begin == item.row_end) return;
    const int64_t output = begin * kernel.panel_outputs;
    item.panels = static_cast<const char*>(weight.panels) + begin * weight.panel_bytes;
    if (item.bias != nullptr) item.bias += output;
    item.output += output;
    item.outputs = std::min(end * kernel.panel_outputs, weight.outputs) - output;
    run(item);
  });
}

}  // namespace structattn::linear
