// LinearCpu: the choice of a kernel for this CPU, and the cut of a product into items.
// Called by server/model/linear_layer. Multiplies nothing itself; see linear-inl.h.
#include <algorithm>

#include "kernels/check.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/linear_kernel.h"

namespace structattn {
namespace {

const LinearKernel& BestKernel(DType dtype) {
  for (const auto set : kLinearKernelSets) {
    for (const LinearKernel& kernel : set()) {
      if (kernel.dtype == dtype) return kernel;
    }
  }
  STRUCTATTN_CHECK(false && "the portable set has every dtype");
  std::abort();
}

// Panels of one item: as many as an item may hold, since they share the staging of inputs; fewer
// where there would be too few items to share out evenly.
int64_t PanelsPerItem(int64_t panels, int64_t row_items) {
  constexpr int64_t kWantedItems = 16;
  return std::clamp<int64_t>(panels * row_items / kWantedItems, 1, kItemPanels);
}

}  // namespace

PackedWeight PackedWeight::Pack(std::span<const MatrixView> views, const PackTarget& target) {
  return PackFor(BestKernel(target.dtype), views, target);
}

DType PackedWeight::dtype() const { return kernel_->dtype; }

std::string_view LinearKernelName(DType dtype) { return BestKernel(dtype).name; }

void LinearCpu(ThreadPool& pool, const LinearParams& params) {
  const PackedWeight& weight = *params.weight;
  const LinearKernel& kernel = weight.kernel();
  const int64_t panels = (weight.outputs() + kernel.panel_outputs - 1) / kernel.panel_outputs;
  const int64_t row_items = (params.rows + kItemRows - 1) / kItemRows;
  const int64_t per_item = PanelsPerItem(panels, row_items);
  const int64_t panel_items = (panels + per_item - 1) / per_item;
  const int64_t panel_bytes = weight.bytes() / panels;
  const int64_t item_outputs = per_item * kernel.panel_outputs;
  pool.ParallelFor(row_items * panel_items, [&](int64_t index) {
    const int64_t row_item = index % row_items;  // Neighbours in time share panels.
    const int64_t output = index / row_items * item_outputs;
    kernel.run({.input = params.input,
                .panels = static_cast<const char*>(weight.data()) +
                          index / row_items * per_item * panel_bytes,
                .bias = params.bias == nullptr ? nullptr : params.bias + output,
                .residual = params.residual == nullptr ? nullptr : params.residual + output,
                .output = params.output + output,
                .inputs = weight.inputs(),
                .outputs = std::min(item_outputs, weight.outputs() - output),
                .output_stride = weight.outputs(),
                .row_begin = row_item * kItemRows,
                .row_end = std::min(params.rows, (row_item + 1) * kItemRows)});
  });
}

}  // namespace structattn
