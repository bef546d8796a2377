// LinearCpu: the choice of a kernel for this CPU, and the cut of a product into items.
// Called by server/model/linear_layer. Multiplies nothing itself; see linear-inl.h.
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

// How the panels of a weight are cut into items. With few rows, time is reading the weight, and
// memory gives most to long streams: each thread gets one, of equal lengths, and what is left in
// small items makes up for threads that came late. With more rows than an item holds, items are as
// many as panels that share the staging of inputs, and fewer where there would be too few of them.
class PanelItems {
 public:
  PanelItems(int64_t panels, int64_t row_items, int threads, bool blocks) : panels_(panels) {
    if (row_items == 1) {
      streams_ = threads;
      stream_ = panels * 31 / 32 / threads;
      small_ = std::clamp<int64_t>((panels - streams_ * stream_) / (4 * threads), 1, kGroupPanels);
    } else {
      small_ = std::clamp<int64_t>(panels * row_items / ((blocks ? 4 : 8) * threads), 1,
                                   blocks ? panels : kGroupPanels);
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

const LinearKernel& BestBlockKernel(DType dtype) {
  if (dtype != DType::kBfloat16) return BestLinearKernel(dtype);
  for (const auto set : kQuadKernelSets) {
    if (!set().empty()) return set()[0];
  }
  STRUCTATTN_CHECK(false && "there is a portable kernel");
  std::abort();
}

PackedWeight PackedWeight::Pack(std::span<const MatrixView> views, const PackTarget& target) {
  return PackFor(BestLinearKernel(target.dtype), views, target);
}

DType PackedWeight::dtype() const { return kernel_->dtype; }

std::string_view LinearKernelName(DType dtype) { return BestLinearKernel(dtype).name; }

void LinearCpu(ThreadPool& pool, const LinearParams& params) {
  const PackedWeight& weight = *params.weight;
  const LinearKernel& kernel = weight.kernel();
  const int64_t panels = (weight.outputs() + kernel.panel_outputs - 1) / kernel.panel_outputs;
  const int64_t item_rows = kernel.item_rows;
  const int64_t row_items = (params.rows + item_rows - 1) / item_rows;
  const int64_t panel_bytes = weight.bytes() / panels;
  const auto run = weight.format().has_value() ? kernel.run_blocks : kernel.run;
  const BlockKernel* blocks =
      weight.format().has_value() ? &kernel.find_blocks(*weight.format()) : nullptr;
  const int64_t output_stride = params.output_stride == 0 ? weight.outputs() : params.output_stride;
  const PanelItems panel_items(panels, row_items, pool.threads(), blocks != nullptr);
  pool.ParallelFor(row_items * panel_items.count(), [&](int64_t index) {
    const int64_t row_item = index % row_items;  // Neighbours in time share panels.
    const auto [begin, end] = panel_items[index / row_items];
    if (begin == end) return;
    const int64_t output = begin * kernel.panel_outputs;
    run({.input = params.input,
         .panels = static_cast<const char*>(weight.data()) + begin * panel_bytes,
         .bias = params.bias == nullptr ? nullptr : params.bias + output,
         .residual = params.residual == nullptr ? nullptr : params.residual + output,
         .output = params.output + output,
         .inputs = weight.inputs(),
         .outputs = std::min(end * kernel.panel_outputs, weight.outputs()) - output,
         .output_stride = output_stride,
         .row_begin = row_item * item_rows,
         .row_end = std::min(params.rows, (row_item + 1) * item_rows),
         .panel_bytes = panel_bytes,
         .blocks = blocks});
  });
}

}  // namespace structattn
