// LocateQuantizedMatrix: which tensors each form of matrix has, their shapes and types, and the
// checks of what they hold. See quantized_matrix.h.
#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "server/model/quantized_matrix.h"
#include "server/model/refusal.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

using Shape = std::vector<int64_t>;

absl::Status CheckDType(const FoundTensor& tensor, std::string_view dtype) {
  if (tensor.tensor->dtype == dtype) return absl::OkStatus();
  return Refuse(tensor.place(), ": dtype ", tensor.tensor->dtype, ": supported is ", dtype);
}

absl::Status CheckShape(const FoundTensor& tensor, const Shape& needed) {
  if (tensor.tensor->shape == needed) return absl::OkStatus();
  return Refuse(tensor.place(), ": shape [", absl::StrJoin(tensor.tensor->shape, ", "),
                "], the config asks for [", absl::StrJoin(needed, ", "), "]");
}

// Scales may leave out axes of one.
absl::Status CheckScales(const FoundTensor& tensor, const Shape& needed) {
  if (!PlainDType(tensor.tensor->dtype).has_value()) {
    return Refuse(tensor.place(), ": dtype ", tensor.tensor->dtype,
                  ": supported are F32, F16, BF16");
  }
  Shape given = tensor.tensor->shape;
  Shape asked = needed;
  std::erase(given, 1);
  std::erase(asked, 1);
  return given == asked ? absl::OkStatus() : CheckShape(tensor, needed);
}

// With the last point.
std::string ModuleOf(std::string_view name) {
  return std::string(name.substr(0, name.rfind('.') + 1));
}

// Finds and checks the tensors of one matrix.
class Locator {
 public:
  Locator(const FolderQuantization& quantization, const TensorSpec& spec, const TensorFinder& find)
      : spec_(spec), find_(find), module_(ModuleOf(spec.name)) {
    const ScaleTile& tile = quantization.tile;
    matrix_.quantization = quantization;
    matrix_.outputs = spec.rows;
    matrix_.inputs = spec.columns;
    matrix_.tile = {tile.outputs == ScaleTile::kAll ? spec.rows : tile.outputs,
                    tile.inputs == ScaleTile::kAll ? spec.columns : tile.inputs};
  }

  absl::StatusOr<std::optional<QuantizedMatrix>> Locate() {
    const QuantizedForm form = matrix_.quantization.form;
    const std::string name = NameOfCodes(form, spec_.name);
    STRUCTATTN_ASSIGN_OR_RETURN(std::optional<FoundTensor> codes, find_(name));
    if (!codes.has_value()) return std::optional<QuantizedMatrix>();
    const bool own_name = name != spec_.name;
    if (!own_name && PlainDType(codes->tensor->dtype).has_value()) return FindNoScales();
    if (own_name) STRUCTATTN_RETURN_IF_ERROR(RefuseBoth(*codes));
    matrix_.codes = *std::move(codes);
    STRUCTATTN_RETURN_IF_ERROR(CheckDivision());
    STRUCTATTN_RETURN_IF_ERROR(LocateForm(form));
    return std::optional(matrix_);
  }

 private:
  absl::Status LocateForm(QuantizedForm form) {
    switch (form) {
      case QuantizedForm::kGptq:
        return LocateGptq();
      case QuantizedForm::kAwq:
        return LocateAwq();
      case QuantizedForm::kPackedIntegers:
        return LocatePackedIntegers();
      case QuantizedForm::kIntegers:
        return LocateIntegers();
      case QuantizedForm::kFloat8:
        return LocateFloat8();
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::optional<FoundTensor>> Find(std::string_view suffix) const {
    return find_(Concat(module_, suffix));
  }

  absl::StatusOr<FoundTensor> Need(std::string_view suffix) const {
    STRUCTATTN_ASSIGN_OR_RETURN(std::optional<FoundTensor> found, Find(suffix));
    if (found.has_value()) return *std::move(found);
    return Refuse(matrix_.codes.place(), ": '", module_, suffix, "' is missing beside it");
  }

  // A matrix of plain numbers is one without scales.
  absl::StatusOr<std::optional<QuantizedMatrix>> FindNoScales() const {
    for (const std::string_view suffix : {"weight_scale_inv", "weight_scale"}) {
      STRUCTATTN_ASSIGN_OR_RETURN(const std::optional<FoundTensor> scales, Find(suffix));
      if (!scales.has_value()) continue;
      return Refuse(scales->place(), ": '", spec_.name, "' beside it is not quantized");
    }
    return std::optional<QuantizedMatrix>();
  }

  absl::Status RefuseBoth(const FoundTensor& codes) const {
    STRUCTATTN_ASSIGN_OR_RETURN(const std::optional<FoundTensor> plain, find_(spec_.name));
    if (!plain.has_value()) return absl::OkStatus();
    return Refuse(codes.place(), ": '", spec_.name, "' is there too");
  }

  absl::Status CheckDivision() const {
    const auto& [quantization, outputs, inputs, tile, codes, scales, zeros, map] = matrix_;
    if (quantization.form == QuantizedForm::kFloat8) return absl::OkStatus();  // Cut at the edges.
    if (inputs % tile.inputs != 0) {
      return Refuse(codes.place(), ": ", inputs, " inputs: group_size ", tile.inputs,
                    " does not divide them");
    }
    const int64_t per_word = 32 / quantization.bits;
    const bool whole_inputs = quantization.form == QuantizedForm::kGptq;
    const bool whole_outputs = whole_inputs || quantization.form == QuantizedForm::kAwq;
    if ((whole_inputs && inputs % per_word != 0) || (whole_outputs && outputs % per_word != 0)) {
      return Refuse(codes.place(), ": [", outputs, ", ", inputs, "] outputs and inputs: ", per_word,
                    " codes of a word do not divide them");
    }
    return absl::OkStatus();
  }

  absl::Status LocateGptq() {
    const int64_t per_word = 32 / matrix_.quantization.bits;
    const int64_t quant_blocks = matrix_.scale_columns();
    STRUCTATTN_RETURN_IF_ERROR(CheckCodes("I32", {matrix_.inputs / per_word, matrix_.outputs}));
    STRUCTATTN_RETURN_IF_ERROR(TakeScales({"scales"}, {quant_blocks, matrix_.outputs}));
    STRUCTATTN_RETURN_IF_ERROR(
        TakeZeros("qzeros", "I32", {quant_blocks, matrix_.outputs / per_word}));
    return TakeInputMap("g_idx");
  }

  absl::Status LocateAwq() {
    const int64_t quant_blocks = matrix_.scale_columns();
    const int64_t words = matrix_.outputs / 8;
    STRUCTATTN_RETURN_IF_ERROR(CheckCodes("I32", {matrix_.inputs, words}));
    STRUCTATTN_RETURN_IF_ERROR(TakeScales({"scales"}, {quant_blocks, matrix_.outputs}));
    return TakeZeros("qzeros", "I32", {quant_blocks, words});
  }

  absl::Status LocatePackedIntegers() {
    const int64_t per_word = 32 / matrix_.quantization.bits;
    const auto words = [per_word](int64_t codes) { return (codes + per_word - 1) / per_word; };
    STRUCTATTN_RETURN_IF_ERROR(CheckCodes("I32", {matrix_.outputs, words(matrix_.inputs)}));
    STRUCTATTN_RETURN_IF_ERROR(CheckStoredShape());
    STRUCTATTN_RETURN_IF_ERROR(
        TakeScales({"weight_scale"}, {matrix_.scale_rows(), matrix_.scale_columns()}));
    STRUCTATTN_RETURN_IF_ERROR(
        TakeZeros("weight_zero_point", "I32", {words(matrix_.outputs), matrix_.scale_columns()}));
    return TakeInputMap("weight_g_idx");
  }

  absl::Status LocateIntegers() {
    STRUCTATTN_RETURN_IF_ERROR(CheckCodes("I8", {matrix_.outputs, matrix_.inputs}));
    const Shape scales = {matrix_.scale_rows(), matrix_.scale_columns()};
    STRUCTATTN_RETURN_IF_ERROR(TakeScales({"weight_scale"}, scales));
    STRUCTATTN_RETURN_IF_ERROR(TakeZeros("weight_zero_point", "I8", scales));
    return TakeInputMap("weight_g_idx");
  }

  absl::Status LocateFloat8() {
    STRUCTATTN_RETURN_IF_ERROR(CheckCodes("F8_E4M3", {matrix_.outputs, matrix_.inputs}));
    return TakeScales({"weight_scale_inv", "weight_scale"},
                      {matrix_.scale_rows(), matrix_.scale_columns()});
  }

  absl::Status CheckCodes(std::string_view dtype, const Shape& shape) const {
    STRUCTATTN_RETURN_IF_ERROR(CheckDType(matrix_.codes, dtype));
    return CheckShape(matrix_.codes, shape);
  }

  // The first of the names that is there; the last must be, where none before is.
  absl::Status TakeScales(std::initializer_list<std::string_view> suffixes, const Shape& shape) {
    for (const std::string_view suffix : suffixes) {
      STRUCTATTN_ASSIGN_OR_RETURN(std::optional<FoundTensor> found, Find(suffix));
      if (!found.has_value()) continue;
      matrix_.scales = *std::move(found);
      return CheckScales(matrix_.scales, shape);
    }
    return Need(*suffixes.begin()).status();
  }

  absl::Status TakeZeros(std::string_view suffix, std::string_view dtype, const Shape& shape) {
    if (!matrix_.quantization.has_zeros) return absl::OkStatus();
    STRUCTATTN_ASSIGN_OR_RETURN(matrix_.zeros, Need(suffix));
    STRUCTATTN_RETURN_IF_ERROR(CheckDType(*matrix_.zeros, dtype));
    return CheckShape(*matrix_.zeros, shape);
  }

  // The stored [outputs, inputs].
  absl::Status CheckStoredShape() const {
    STRUCTATTN_ASSIGN_OR_RETURN(const FoundTensor tensor, Need("weight_shape"));
    STRUCTATTN_RETURN_IF_ERROR(CheckDType(tensor, "I64"));
    STRUCTATTN_RETURN_IF_ERROR(CheckShape(tensor, {2}));
    int64_t stored[2];
    std::memcpy(stored, tensor.bytes().data(), sizeof(stored));
    if (stored[0] == matrix_.outputs && stored[1] == matrix_.inputs) return absl::OkStatus();
    return Refuse(tensor.place(), ": [", stored[0], ", ", stored[1], "], the config asks for [",
                  matrix_.outputs, ", ", matrix_.inputs, "]");
  }

  // The quant block of each input. Kernels of GPTQ differ where it is not in order and `desc_act`
  // is false: some use it, some do not.
  absl::Status TakeInputMap(std::string_view suffix) {
    STRUCTATTN_ASSIGN_OR_RETURN(matrix_.input_map, Find(suffix));
    const bool any_order = matrix_.quantization.needs_input_map;
    if (!matrix_.input_map.has_value()) {
      return any_order ? Need(suffix).status() : absl::OkStatus();
    }
    const FoundTensor& map = *matrix_.input_map;
    STRUCTATTN_RETURN_IF_ERROR(CheckDType(map, "I32"));
    STRUCTATTN_RETURN_IF_ERROR(CheckShape(map, {matrix_.inputs}));
    for (int64_t input = 0; input < matrix_.inputs; ++input) {
      int32_t index;
      std::memcpy(&index, map.bytes().data() + 4 * input, sizeof(index));
      if (index < 0 || index >= matrix_.scale_columns()) {
        return Refuse(map.place(), ": [", input, "] is ", index, ": allowed are 0 to ",
                      matrix_.scale_columns() - 1);
      }
      if (!any_order && index != input / matrix_.tile.inputs) {
        return Refuse(map.place(), ": [", input, "] is ", index, ", the config asks for ",
                      input / matrix_.tile.inputs, " as it names no order of activations");
      }
    }
    return absl::OkStatus();
  }

  const TensorSpec& spec_;
  const TensorFinder& find_;
  const std::string module_;
  QuantizedMatrix matrix_;
};

}  // namespace

std::string NameOfCodes(QuantizedForm form, std::string_view name) {
  switch (form) {
    case QuantizedForm::kGptq:
    case QuantizedForm::kAwq:
      return ModuleOf(name) + "qweight";
    case QuantizedForm::kPackedIntegers:
      return ModuleOf(name) + "weight_packed";
    case QuantizedForm::kIntegers:
    case QuantizedForm::kFloat8:
      return ModuleOf(name) + "weight";
  }
  return "";
}

absl::StatusOr<std::optional<QuantizedMatrix>> LocateQuantizedMatrix(
    const FolderQuantization& quantization, const TensorSpec& spec, const TensorFinder& find) {
  return Locator(quantization, spec, find).Locate();
}

}  // namespace structattn
