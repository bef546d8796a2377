// LinearCpu: the choice of a kernel for this CPU, and the cut of a product into items.
// Called by server/model/linear_layer. Multiplies nothing itself; see linear-inl.h
// and quantized_dot-inl.h.
#include <algorithm>

#include "kernels/check.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/linear_kernel.h"

namespace structattn {
namespace {

struct Panels {
  int64_t begin;
  int64_t end;
};

// How the rows of a call are cut into items, in multiples of kBand and nearly equal: into as few as
// the kernel can, or more where threads outnumber panels.
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
  static constexpr int64_t kBand = 32;
  static_assert(kItemRows % kBand == 0);  // So no item is longer than its kernel's.

  int64_t rows_;
  int64_t count_;
};

// What of a product is cut into items besides rows.
struct PanelsToCut {
  int64_t panels;
  int64_t row_items;
  int threads;
  bool blocks;  // Staging them costs more, and the panels are small.
};

// How the panels of a weight are cut into items. With one item of rows, each thread gets a stream
// of panels, all of equal length: memory gives most to those, and many rows pass them while they
// stay in a cache. What is left, in small items, makes up for threads that came late. With more
// items of rows, items are as many as panels that share the staging of inputs, and fewer where
// there would be too few of them.
class PanelItems {
 public:
  explicit PanelItems(const PanelsToCut& cut) : panels_(cut.panels) {
    const auto [panels, row_items, threads, blocks] = cut;
    if (row_items == 1) {
      streams_ = threads;
      stream_ = panels * 31 / 32 / threads;
      small_ = std::clamp<int64_t>((panels - streams_ * stream_) / (4 * threads), 1, kMacroPanels);
    } else {
      small_ = std::clamp<int64_t>(panels * row_items / ((blocks ? 4 : 8) * threads), 1,
                                   blocks ? panels : kMacroPanels);
    }
  }

  int64_t count() const { return streams_ + (panels_ - streams_ * stream_ + small_ - 1) / small_; }

  Panels operator[](int64_t item) const {
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
  for (const auto set : kLinearKernelSets) {
    for (const LinearKernel& kernel : set()) {
      if (kernel.dtype == dtype) return kernel;
    }
  }
  STRUCTATTN_CHECK(false && "the portable set has every dtype");
  std::abort();
}

const LinearKernel& BestQuantizedKernel(DType dtype) {
  if (dtype != DType::kBfloat16) return BestLinearKernel(dtype);
  for (const auto set : kDotKernelSets) {
    if (!set().empty()) return set()[0];
  }
  STRUCTATTN_CHECK(false && "there is a portable kernel");
  std::abort();
}

PackedWeight PackedWeight::Pack(std::span<const MatrixView> views, const PackTarget& target) {
  return PackFor(BestLinearKernel(target.dtype), views, target);
}

DType PackedWeight::dtype() const { return kernel_->dtype; }

void LinearCpu(ThreadPool& pool, const LinearParams& params) {
  const PackedWeight& weight = *params.weight;
  const LinearKernel& kernel = weight.kernel();
  const int64_t panels = (weight.outputs() + kernel.panel_outputs - 1) / kernel.panel_outputs;
  if (params.rows == 0) return;
  const RowItems rows(params.rows, panels, pool.threads(), kernel);
  const int64_t panel_bytes = weight.bytes() / panels;
  const auto run = weight.format().has_value() ? kernel.run_quantized : kernel.run;
  const QuantizedKernel* quantized =
      weight.format().has_value() ? &kernel.find_quantized(*weight.format()) : nullptr;
  const int64_t output_stride = params.output_stride == 0 ? weight.outputs() : params.output_stride;
  const PanelItems panel_items({panels, rows.count(), pool.threads(), quantized != nullptr});
  pool.ParallelFor(rows.count() * panel_items.count(), [&](int64_t index) {
    const int64_t row_item = index % rows.count();  // Neighbours in time share panels.
    const auto [begin, end] = panel_items[index / rows.count()];
    if (begin == end || rows.Begin(row_item) == rows.Begin(row_item + 1)) return;
    const int64_t output = begin * kernel.panel_outputs;
    run({.input = params.input,
         .panels = static_cast<const char*>(weight.data()) + begin * panel_bytes,
         .bias = params.bias == nullptr ? nullptr : params.bias + output,
         .residual = params.residual == nullptr ? nullptr : params.residual + output,
         .output = params.output + output,
         .inputs = weight.inputs(),
         .outputs = std::min(end * kernel.panel_outputs, weight.outputs()) - output,
         .output_stride = output_stride,
         .row_begin = rows.Begin(row_item),
         .row_end = rows.Begin(row_item + 1),
         .panel_bytes = panel_bytes,
         .quantized = quantized});
  });
}

}  // namespace structattn
