// LinearCpu: the choice of a kernel for this CPU, and the cut of products into items. It multiplies
// nothing itself: see linear-inl.h and quantized_dot.cc.
#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/linear/linear.h"
#include "kernels/linear/linear_kernel.h"

namespace structattn::linear {
namespace {

// The rows of a product are cut into items of nearly equal size, in multiples of kBand: into as few
// as the kernel can take, or more where threads outnumber panels.
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

  // Items of `small` panels: of many products, the items make up for each other.
  PanelItems(int64_t panels, int64_t small) : panels_(panels), small_(small) {}

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

int64_t PanelsOf(const LinearWeight& weight) {
  const int64_t width = weight.kernel->panel_outputs;
  return (weight.outputs + width - 1) / width;
}

// One product's items, numbered from `begin` among those of all products.
class ProductItems {
 public:
  ProductItems(const LinearParams& params, const RowItems& rows, const PanelItems& panels,
               int64_t begin)
      : params_(params), rows_(rows), panels_(panels), begin_(begin) {}

  int64_t end() const { return begin_ + rows_.count() * panels_.count(); }

  void Run(int64_t index) const {
    const LinearWeight& weight = params_.weight;
    const LinearKernel& kernel = *weight.kernel;
    const int64_t row_item = (index - begin_) % rows_.count();  // Neighbours in time share panels.
    const auto [begin, end] = panels_[(index - begin_) / rows_.count()];
    const int64_t row_begin = rows_.Begin(row_item);
    const int64_t row_end = rows_.Begin(row_item + 1);
    if (begin == end || row_begin == row_end) return;
    const int64_t output = begin * kernel.panel_outputs;
    const LinearItem item = {
        .input = params_.input,
        .panels = static_cast<const char*>(weight.panels) + begin * weight.panel_bytes,
        .format = weight.format,
        .bias = params_.bias == nullptr ? nullptr : params_.bias + output,
        .output = params_.output + output,
        .accumulate = params_.accumulate,
        .inputs = weight.inputs,
        .units = weight.panel_units,
        .outputs = std::min(end * kernel.panel_outputs, weight.outputs) - output,
        .output_stride = params_.output_stride == 0 ? weight.outputs : params_.output_stride,
        .panel_bytes = weight.panel_bytes,
        .row_begin = row_begin,
        .row_end = row_end};
    (weight.kind == WeightKind::kQuantized ? kernel.run_quantized : kernel.run)(item);
  }

 private:
  const LinearParams& params_;
  RowItems rows_;
  PanelItems panels_;
  int64_t begin_;
};

// A product alone keeps all threads busy by itself. Many are cut into some 16 items a thread, of
// panels that lie one after the other, so that what is left at the end is short.
std::vector<ProductItems> CutProducts(std::span<const LinearParams> products, int threads) {
  std::vector<ProductItems> items;
  int64_t panels_of_all = 0;
  for (const LinearParams& product : products) panels_of_all += PanelsOf(product.weight);
  const int64_t share = std::clamp<int64_t>(panels_of_all / (16 * threads), 1, kMacroPanels);
  for (const LinearParams& product : products) {
    if (product.rows == 0) continue;
    const LinearKernel& kernel = *product.weight.kernel;
    const bool quantized = product.weight.kind == WeightKind::kQuantized;
    const int64_t panels = PanelsOf(product.weight);
    const bool alone = products.size() == 1;
    const RowItems rows(product.rows, panels, alone ? threads : 1, kernel);
    const PanelItems panel_items =
        alone ? PanelItems(panels, rows.count(), threads, quantized) : PanelItems(panels, share);
    items.emplace_back(product, rows, panel_items, items.empty() ? 0 : items.back().end());
  }
  return items;
}

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

void LinearCpu(ThreadPool& pool, std::span<const LinearParams> products) {
  const std::vector<ProductItems> items = CutProducts(products, pool.threads());
  if (items.empty()) return;
  pool.ParallelFor(items.back().end(), [&](int64_t index) {
    std::ranges::upper_bound(items, index, {}, &ProductItems::end)->Run(index);
  });
}

}  // namespace structattn::linear
