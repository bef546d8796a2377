// From tensors to what kernels/quant expands and holds. See quantized_matrix.h.
#include "server/model/quantized_matrix.h"

#include <cstring>
#include <memory>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/quant/float8_matrix.h"
#include "kernels/quant/integer_matrix.h"
#include "server/model/parallel_rows.h"

namespace structattn {
namespace {

template <typename T>
T ElementAt(std::string_view bytes, int64_t index) {
  T element;
  std::memcpy(&element, bytes.data() + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return element;
}

// In the order in which they are stored.
std::vector<float> StoredScales(const FoundTensor& tensor) {
  const DType dtype = *PlainDType(tensor.tensor->dtype);
  std::vector<float> scales(tensor.bytes().size() / ByteSize(dtype));
  for (size_t i = 0; i < scales.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    switch (dtype) {
      case DType::kFloat32:
        scales[i] = ElementAt<float>(tensor.bytes(), index);
        break;
      case DType::kBfloat16:
        scales[i] = ToFloat(ElementAt<Bfloat16>(tensor.bytes(), index));
        break;
      case DType::kFloat16:
        scales[i] = ToFloat(ElementAt<Float16>(tensor.bytes(), index));
        break;
    }
  }
  return scales;
}

// Whether scales lie as [quant blocks][outputs] and not the other way around.
bool QuantBlocksFirst(const QuantizedMatrix& matrix) {
  return matrix.quantization.form == QuantizedForm::kGptq ||
         matrix.quantization.form == QuantizedForm::kAwq;
}

// As IntegerMatrix has them.
std::vector<float> Scales(const QuantizedMatrix& matrix) {
  std::vector<float> stored = StoredScales(matrix.scales);
  if (QuantBlocksFirst(matrix)) return stored;
  const int64_t quant_blocks = matrix.scale_columns();
  std::vector<float> scales(static_cast<size_t>(quant_blocks * matrix.outputs));
  for (int64_t output = 0; output < matrix.outputs; ++output) {
    const int64_t row = output / matrix.tile.outputs * quant_blocks;
    for (int64_t i = 0; i < quant_blocks; ++i) {
      scales[i * matrix.outputs + output] = stored[row + i];
    }
  }
  return scales;
}

// The zero of one output and quant block. GPTQ and AWQ pack the zeros of neighbouring outputs into
// words [quant blocks][words], compressed-tensors into words [words][quant blocks].
uint8_t ZeroAt(const QuantizedMatrix& matrix, int64_t output, int64_t quant_block) {
  constexpr int kPlaceOfOutput[] = {0, 4, 1, 5, 2, 6, 3, 7};  // AWQ's, in a word.
  const int bits = matrix.quantization.bits;
  const std::string_view zeros = matrix.zeros->bytes();
  const int64_t quant_blocks = matrix.scale_columns();
  if (matrix.quantization.form == QuantizedForm::kIntegers) {
    return static_cast<uint8_t>(zeros[output * quant_blocks + quant_block]) ^ 128;
  }
  const int64_t per_word = 32 / bits;
  const int64_t words = (matrix.outputs + per_word - 1) / per_word;
  const int64_t at = QuantBlocksFirst(matrix) ? quant_block * words + output / per_word
                                              : output / per_word * quant_blocks + quant_block;
  auto word = ElementAt<uint32_t>(zeros, at);
  // All zeros of a word at once, as GPTQModel reads what it has written.
  if (matrix.quantization.zeros_less_one) word += bits == 4 ? 0x11111111u : 0x01010101u;
  const int64_t place = output % per_word;
  const bool awq = matrix.quantization.form == QuantizedForm::kAwq;
  return static_cast<uint8_t>((word >> (bits * (awq ? kPlaceOfOutput[place] : place))) &
                              ((1u << bits) - 1));
}

std::vector<uint8_t> Zeros(const QuantizedMatrix& matrix) {
  const int64_t quant_blocks = matrix.scale_columns();
  const auto middle = static_cast<uint8_t>(1 << (matrix.quantization.bits - 1));
  std::vector<uint8_t> zeros(static_cast<size_t>(quant_blocks * matrix.outputs), middle);
  if (!matrix.zeros.has_value()) return zeros;
  for (int64_t i = 0; i < quant_blocks; ++i) {
    for (int64_t output = 0; output < matrix.outputs; ++output) {
      zeros[i * matrix.outputs + output] = ZeroAt(matrix, output, i);
    }
  }
  return zeros;
}

std::vector<int32_t> QuantBlockOfInputs(const QuantizedMatrix& matrix) {
  std::vector<int32_t> quant_block_of(static_cast<size_t>(matrix.inputs));
  for (int64_t input = 0; input < matrix.inputs; ++input) {
    quant_block_of[input] = matrix.input_map.has_value()
                                ? ElementAt<int32_t>(matrix.input_map->bytes(), input)
                                : static_cast<int32_t>(input / matrix.tile.inputs);
  }
  return quant_block_of;
}

CodeOrder OrderOf(QuantizedForm form) {
  if (form == QuantizedForm::kGptq) return CodeOrder::kWordsOfInputs;
  return form == QuantizedForm::kAwq ? CodeOrder::kWordsOfOutputs : CodeOrder::kRows;
}

IntegerMatrix Integers(const QuantizedMatrix& matrix) {
  const QuantizedForm form = matrix.quantization.form;
  return {.codes = {.data = reinterpret_cast<const uint8_t*>(matrix.codes.bytes().data()),
                    .order = OrderOf(form),
                    .bits = matrix.quantization.bits,
                    .is_signed = form == QuantizedForm::kIntegers,
                    .row_bytes = static_cast<int64_t>(matrix.codes.bytes().size()) / matrix.outputs,
                    .outputs = matrix.outputs,
                    .inputs = matrix.inputs},
          .quant_block_of = QuantBlockOfInputs(matrix),
          .scales = Scales(matrix),
          .zeros = Zeros(matrix)};
}

Float8Matrix Floats(const QuantizedMatrix& matrix) {
  return {.data = reinterpret_cast<const uint8_t*>(matrix.codes.bytes().data()),
          .outputs = matrix.outputs,
          .inputs = matrix.inputs,
          .outputs_per_scale = matrix.tile.outputs,
          .inputs_per_scale = matrix.tile.inputs,
          .scales = StoredScales(matrix.scales)};
}

// `values` is an IntegerMatrix or a Float8Matrix.
template <typename Values>
LoadedMatrix ExpandRows(const QuantizedMatrix& matrix, const Values& values, ThreadPool* pool) {
  LoadedMatrix loaded;
  loaded.owned =
      std::make_unique_for_overwrite<std::byte[]>(matrix.outputs * matrix.inputs * sizeof(float));
  loaded.view = {loaded.owned.get(), DType::kFloat32, matrix.outputs, matrix.inputs};
  auto* const to = reinterpret_cast<float*>(loaded.owned.get());
  ForEachRow(matrix.outputs, matrix.inputs, pool,
             [&](int64_t output) { values.ExpandRow(output, to + output * matrix.inputs); });
  return loaded;
}

}  // namespace

LoadedMatrix Expand(const QuantizedMatrix& matrix, ThreadPool* pool) {
  if (matrix.quantization.form == QuantizedForm::kFloat8) {
    return ExpandRows(matrix, Floats(matrix), pool);
  }
  return ExpandRows(matrix, Integers(matrix), pool);
}

std::optional<QuantFormat> HeldFormat(const QuantizedMatrix& matrix) {
  if (matrix.quantization.form == QuantizedForm::kFloat8) return std::nullopt;
  return Integers(matrix).HeldAs();
}

std::optional<QuantMatrix> Hold(const QuantizedMatrix& matrix, ThreadPool& pool) {
  if (matrix.quantization.form == QuantizedForm::kFloat8) return std::nullopt;
  const IntegerMatrix integers = Integers(matrix);
  const std::optional<QuantFormat> format = integers.HeldAs();
  if (!format.has_value()) return std::nullopt;
  return Requantize(integers, *format, pool);
}

}  // namespace structattn
