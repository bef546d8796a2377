// Packing of quantized weights: stacking, and the layout that quantized_panel.h shows.
// Called when a model is loaded, through PackedWeight::PackQuantized; never while serving. Copies
// codes and scales as they are: packing changes no value.
#include <algorithm>
#include <cstring>

#include "kernels/check.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/linear_kernel.h"
#include "kernels/linear/quantized_panel.h"

namespace structattn {
namespace {

// The blocks of row `row` of the stacked views; null past the last one.
const char* FindRow(std::span<const QuantMatrixView> views, int64_t row) {
  for (const QuantMatrixView& view : views) {
    if (row < view.rows) return static_cast<const char*>(view.data) + row * view.row_bytes();
    row -= view.rows;
  }
  return nullptr;
}

// Places one output's parts of a block among its neighbours'.
class QuantBlockWriter {
 public:
  QuantBlockWriter(QuantFormat format, const LinearKernel& kernel)
      : block_(QuantLayoutOf(format)),
        at_(PanelLayoutOf(format, kernel.panel_outputs)),
        outputs_(kernel.panel_outputs),
        dot_order_(kernel.dot_order) {}

  int64_t quant_block_bytes() const { return at_.quant_block_bytes; }

  void Write(const QuantBlockParts& parts, int64_t output, uint8_t* to) const {
    PutHalf(parts.scale, to, output);
    if (block_.has_shift) PutHalf(parts.shift, to + at_.shifts, output);
    for (int chunk = 0; chunk < block_.chunks; ++chunk) {
      uint8_t* const place = to + at_.chunks + chunk * at_.chunk_bytes;
      if (block_.has_strip_scales()) {
        for (int strip = 0; strip < block_.strips_per_chunk; ++strip) {
          place[strip * outputs_ + output] =
              parts.strip_scales[chunk * block_.strips_per_chunk + strip];
        }
        if (block_.has_shift) place[at_.minima + output] = parts.minima[chunk];
      }
      WriteCodes(parts.codes + chunk * kChunkInputs, output, place);
    }
  }

 private:
  static void PutHalf(uint16_t bits, uint8_t* row, int64_t output) {
    std::memcpy(row + 2 * output, &bits, sizeof(bits));
  }

  void PutPlane(const uint8_t* codes, int bit, uint8_t* row, int64_t output) const {
    uint32_t word = 0;
    for (int i = 0; i < kChunkInputs; ++i) {
      const int place = dot_order_ ? i % 4 * 8 + i / 4 : i;
      word |= static_cast<uint32_t>((codes[i] >> bit) & 1) << place;
    }
    std::memcpy(row + 4 * output, &word, sizeof(word));
  }

  void WriteCodes(const uint8_t* codes, int64_t output, uint8_t* chunk) const {
    if (dot_order_) return WriteDots(codes, output, chunk);
    uint8_t* const to = chunk + at_.codes + output;
    if (block_.code_bits == 8) {
      for (int i = 0; i < kChunkInputs; ++i) to[i * outputs_] = codes[i];
      return;
    }
    for (int i = 0; i < kChunkInputs; i += 2) {
      to[i / 2 * outputs_] = static_cast<uint8_t>((codes[i] & 15) | ((codes[i + 1] & 15) << 4));
    }
    WritePlanes(codes, output, chunk);
  }

  void WriteDots(const uint8_t* codes, int64_t output, uint8_t* chunk) const {
    uint8_t* const to = chunk + at_.codes + 4 * output;
    const auto place = [&](int row, int i) -> uint8_t& { return to[4 * row * outputs_ + i % 4]; };
    if (block_.code_bits == 8) {
      for (int i = 0; i < kChunkInputs; ++i) place(i / 4, i) = codes[i] ^ 0x80;
      return;
    }
    for (int i = 0; i < kChunkInputs; ++i) {
      if (i % 8 < 4) {
        place(i / 8, i) = codes[i] & 15;
      } else {
        place(i / 8, i) |= static_cast<uint8_t>((codes[i] & 15) << 4);
      }
    }
    WritePlanes(codes, output, chunk);
  }

  void WritePlanes(const uint8_t* codes, int64_t output, uint8_t* chunk) const {
    if (block_.code_bits == 5 || block_.code_bits == 6) {
      PutPlane(codes, 4, chunk + at_.fifth_bits, output);
    }
    if (block_.code_bits == 6) PutPlane(codes, 5, chunk + at_.sixth_bits, output);
  }

  const QuantBlockLayout block_;
  const QuantizedPanelLayout at_;
  const int64_t outputs_;
  const bool dot_order_;
};

}  // namespace

PackedWeight PackedWeight::PackQuantized(std::span<const QuantMatrixView> views,
                                         const PackTarget& target) {
  return PackQuantizedFor(BestQuantizedKernel(target.dtype), views, target);
}

PackedWeight PackedWeight::PackQuantizedFor(const LinearKernel& kernel,
                                            std::span<const QuantMatrixView> views,
                                            const PackTarget& target) {
  STRUCTATTN_CHECK(!views.empty() && views[0].columns > 0 && target.dtype == kernel.dtype);
  STRUCTATTN_CHECK(kernel.run_quantized != nullptr);
  PackedWeight weight;
  weight.kernel_ = &kernel;
  weight.format_ = views[0].format;
  weight.inputs_ = views[0].columns;
  for (const QuantMatrixView& view : views) {
    STRUCTATTN_CHECK(view.columns == weight.inputs_ && view.format == weight.format_);
    weight.outputs_ += view.rows;
  }
  const QuantBlockWriter writer(views[0].format, kernel);
  const int64_t blocks = views[0].row_quant_blocks();
  const int64_t stored_bytes = QuantBlockBytes(views[0].format);
  const int64_t panels = (weight.outputs_ + kernel.panel_outputs - 1) / kernel.panel_outputs;
  const int64_t panel_bytes = blocks * writer.quant_block_bytes();
  weight.bytes_ = panels * panel_bytes;
  weight.data_ = target.arena.Allocate(weight.bytes_);
  auto* data = static_cast<uint8_t*>(weight.data_.get());
  target.pool.ParallelFor(panels, [&](int64_t panel) {
    for (int output = 0; output < kernel.panel_outputs; ++output) {
      const char* row = FindRow(views, panel * kernel.panel_outputs + output);
      for (int64_t block = 0; block < blocks; ++block) {
        const QuantBlockParts parts =
            row == nullptr ? QuantBlockParts{}
                           : ReadQuantBlock(*weight.format_, row + block * stored_bytes);
        writer.Write(parts, output,
                     data + panel * panel_bytes + block * writer.quant_block_bytes());
      }
    }
  });
  return weight;
}

}  // namespace structattn
