// Packing of weights while a model is loaded: stacking, conversion, and the layouts that
// linear-inl.h shows for numbers and quantized_panel.h for quant blocks. Quantized codes and scales
// are copied as they are: packing changes no value of theirs.
#include <algorithm>
#include <cstring>

#include "kernels/check.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/linear_kernel.h"
#include "kernels/linear/quantized_panel.h"

namespace structattn {
namespace linear {
namespace {

// Inputs of an output that are converted at once; no padding is longer.
constexpr int64_t kRunInputs = 128;

// Row `row` of the stacked views, as a matrix of one row; its data is null past the last one.
template <class View>
View FindRow(std::span<const View> views, int64_t row) {
  for (View view : views) {
    if (row < view.rows) {
      view.data = static_cast<const char*>(view.data) + row * view.row_bytes();
      view.rows = 1;
      return view;
    }
    row -= view.rows;
  }
  return {};
}

// Elements [begin, begin + count) of a row as T, which is `dtype`; zeros for an absent row.
template <typename T>
void Convert(const MatrixView& row, DType dtype, int64_t begin, int64_t count, T* to) {
  if (row.data == nullptr) {
    std::memset(to, 0, sizeof(T) * count);
  } else if (row.dtype == dtype) {
    std::memcpy(to, static_cast<const T*>(row.data) + begin, sizeof(T) * count);
  } else {
    float values[kRunInputs];
    row.ReadRow(0, begin, count, values);
    for (int64_t i = 0; i < count; ++i) to[i] = FromFloat<T>(values[i]);
  }
}

// One panel of numbers, in runs of inputs that stay in the first-level cache while they are spread.
template <typename T>
void PackPanel(const LinearKernel& kernel, std::span<const MatrixView> views, int64_t first_output,
               void* panel) {
  const int64_t inputs = views[0].columns;
  const int64_t per_unit = kernel.inputs_per_unit;
  const int64_t stride = kernel.panel_outputs * per_unit;
  for (int64_t begin = 0; begin < inputs; begin += kRunInputs) {
    const int64_t count = std::min(kRunInputs, inputs - begin);
    const int64_t units = std::min(kRunInputs / per_unit, kernel.Units(inputs) - begin / per_unit);
    T* const first = static_cast<T*>(panel) + begin / per_unit * stride;
    for (int output = 0; output < kernel.panel_outputs; ++output) {
      T row[kRunInputs] = {};
      Convert(FindRow(views, first_output + output), kernel.dtype, begin, count, row);
      T* const to = first + output * per_unit;
      for (int64_t unit = 0; unit < units; ++unit) {
        std::memcpy(to + unit * stride, row + unit * per_unit, sizeof(T) * per_unit);
      }
    }
  }
}

// Places one output's share of a quant block among its neighbours'.
class QuantBlockWriter {
 public:
  QuantBlockWriter(QuantFormat format, const LinearKernel& kernel)
      : layout_(QuantLayoutOf(format)),
        at_(PanelLayoutOf(format, kernel.panel_outputs)),
        outputs_(kernel.panel_outputs),
        dot_order_(kernel.dtype == DType::kBfloat16) {}

  int64_t quant_block_bytes() const { return at_.quant_block_bytes; }

  void Write(const UnpackedQuantBlock& unpacked, int64_t output, uint8_t* to) const {
    std::memcpy(to + 2 * output, &unpacked.scale, 2);
    if (layout_.has_shift) std::memcpy(to + at_.shifts + 2 * output, &unpacked.shift, 2);
    for (int chunk = 0; chunk < layout_.chunks; ++chunk) {
      uint8_t* const place = to + at_.chunks + chunk * at_.chunk_bytes;
      if (layout_.has_strip_scales()) {
        for (int strip = 0; strip < layout_.strips_per_chunk; ++strip) {
          place[strip * outputs_ + output] =
              unpacked.strip_scales[chunk * layout_.strips_per_chunk + strip];
        }
        if (layout_.has_shift) place[at_.minima + output] = unpacked.minima[chunk];
      }
      WriteCodes(unpacked.codes + chunk * kChunkInputs, output, place);
    }
  }

 private:
  // Codes lie in rows of bytes, `side` inputs of an output side by side: one, or four in the order
  // of dot products. Codes of less than 8 bits leave their lower four in nibbles: the low ones are
  // the inputs of one row of whole codes, the high ones those of the next.
  void WriteCodes(const uint8_t* codes, int64_t output, uint8_t* chunk) const {
    const int side = dot_order_ ? 4 : 1;
    uint8_t* const to = chunk + at_.codes + side * output;
    const bool whole = layout_.code_bits == 8;
    for (int i = 0; i < kChunkInputs; ++i) {
      const int row = i / side;
      uint8_t& byte = to[(whole ? row : row / 2) * side * outputs_ + i % side];
      if (whole) {
        byte = dot_order_ ? codes[i] ^ 0x80 : codes[i];
      } else if (row % 2 == 0) {
        byte = codes[i] & 15;
      } else {
        byte |= static_cast<uint8_t>((codes[i] & 15) << 4);
      }
    }
    for (int bit = 4; bit < layout_.code_bits && !whole; ++bit) {
      uint32_t word = 0;
      for (int i = 0; i < kChunkInputs; ++i) {
        const int place = dot_order_ ? i % 4 * 8 + i / 4 : i;
        word |= static_cast<uint32_t>((codes[i] >> bit) & 1) << place;
      }
      const int64_t row = bit == 4 ? at_.fifth_bits : at_.sixth_bits;
      std::memcpy(chunk + row + 4 * output, &word, sizeof(word));
    }
  }

  const QuantBlockLayout layout_;
  const QuantizedPanelLayout at_;
  const int64_t outputs_;
  const bool dot_order_;
};

// The stacked views, packed by pack(panel, its memory) into panels of `units` and `panel_bytes`.
template <class View, class Pack>
PackedWeight PackStacked(const LinearKernel& kernel, std::span<const View> views,
                         const PackTarget& target, const LinearWeight& form, const Pack& pack) {
  PackedWeight weight;
  weight.view = form;
  weight.view.input_dtype = kernel.dtype;
  weight.view.kernel = &kernel;
  weight.view.inputs = views[0].columns;
  for (const View& view : views) {
    STRUCTATTN_CHECK(view.columns == weight.view.inputs && target.dtype == kernel.dtype);
    weight.view.outputs += view.rows;
  }
  const int64_t panels = (weight.view.outputs + kernel.panel_outputs - 1) / kernel.panel_outputs;
  weight.bytes = panels * form.panel_bytes;
  weight.data = target.arena.Allocate(weight.bytes);
  weight.view.panels = weight.data.get();
  auto* const data = static_cast<uint8_t*>(weight.data.get());
  target.pool.ParallelFor(panels,
                          [&](int64_t panel) { pack(panel, data + panel * form.panel_bytes); });
  return weight;
}

}  // namespace
}  // namespace linear

PackedWeight PackWeight(std::span<const MatrixView> views, const PackTarget& target) {
  STRUCTATTN_CHECK(!views.empty() && views[0].columns > 0);
  const linear::LinearKernel& kernel =
      target.kernel != nullptr ? *target.kernel : linear::BestLinearKernel(target.dtype);
  STRUCTATTN_CHECK(kernel.run != nullptr);
  LinearWeight form = {.panel_units = kernel.Units(views[0].columns)};
  form.panel_bytes = form.panel_units * kernel.inputs_per_unit * kernel.panel_outputs *
                     static_cast<int64_t>(ByteSize(kernel.dtype));
  const auto pack = kernel.dtype == DType::kFloat32    ? linear::PackPanel<float>
                    : kernel.dtype == DType::kBfloat16 ? linear::PackPanel<Bfloat16>
                                                       : linear::PackPanel<Float16>;
  return linear::PackStacked(kernel, views, target, form, [&](int64_t panel, uint8_t* to) {
    pack(kernel, views, panel * kernel.panel_outputs, to);
  });
}

PackedWeight PackWeight(std::span<const QuantMatrixView> views, const PackTarget& target) {
  STRUCTATTN_CHECK(!views.empty() && views[0].columns > 0);
  const linear::LinearKernel& kernel =
      target.kernel != nullptr ? *target.kernel : linear::BestQuantizedKernel(target.dtype);
  STRUCTATTN_CHECK(kernel.run_quantized != nullptr);
  const QuantFormat format = views[0].format;
  for (const QuantMatrixView& view : views) STRUCTATTN_CHECK(view.format == format);
  const linear::QuantBlockWriter writer(format, kernel);
  const int64_t quant_blocks = views[0].row_quant_blocks();
  const LinearWeight form = {
      .kind = WeightKind::kQuantized,
      .panel_units = (views[0].columns + kChunkInputs - 1) / kChunkInputs * kChunkInputs,
      .panel_bytes = quant_blocks * writer.quant_block_bytes(),
      .format = format};
  return linear::PackStacked(kernel, views, target, form, [&](int64_t panel, uint8_t* panel_at) {
    for (int output = 0; output < kernel.panel_outputs; ++output) {
      const auto row = linear::FindRow(views, panel * kernel.panel_outputs + output);
      const auto* from = static_cast<const char*>(row.data);
      uint8_t* to = panel_at;
      for (int64_t i = 0; i < quant_blocks; ++i, to += writer.quant_block_bytes()) {
        writer.Write(from == nullptr
                         ? UnpackedQuantBlock{}
                         : ReadQuantBlock(format, from + i * QuantLayoutOf(format).bytes),
                     output, to);
      }
    }
  });
}

}  // namespace structattn
