// See compressed_tensors.h. Keys and their defaults are those of QuantizationConfig and
// QuantizationArgs of the package compressed-tensors.
#include "server/model/compressed_tensors.h"

#include <string>

#include "server/model/refusal.h"
#include "server/model/scale_tile.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

// Keys that decide how weights are stored; two config_groups must agree in them.
constexpr std::string_view kDeciding[] = {"num_bits",  "type",     "strategy",       "group_size",
                                          "symmetric", "actorder", "block_structure"};

// The one object `weights` of all config_groups, and the format that goes with it.
struct Weights {
  const Json* arguments = nullptr;
  std::string format;
};

bool Agree(const Json& one, const Json& other) {
  for (const std::string_view key : kDeciding) {
    const Json* here = Fields(one).Find(key);
    const Json* there = Fields(other).Find(key);
    if ((here == nullptr) != (there == nullptr)) return false;
    if (here != nullptr && *here != *there) return false;
  }
  return true;
}

absl::StatusOr<Weights> FindWeights(const Fields& fields) {
  const Json* groups = fields.Find("config_groups");
  if (groups == nullptr) return Refuse("config_groups is missing");
  if (!groups->is_object()) return Fields::WrongKind("config_groups", *groups, "an object");
  Weights weights;
  for (const auto& [name, group] : groups->items()) {
    const std::string place = Concat("config_groups ", Quoted(name));
    if (!group.is_object()) return Fields::WrongKind(place, group, "an object");
    const Json* arguments = Fields(group).Find("weights");
    if (arguments == nullptr) continue;
    if (!arguments->is_object()) {
      return Fields::WrongKind(place + ": weights", *arguments, "an object");
    }
    std::string format;
    STRUCTATTN_RETURN_IF_ERROR(fields.Read("format", format));
    STRUCTATTN_RETURN_IF_ERROR(Fields(group).Read("format", format));
    if (weights.arguments != nullptr &&
        (weights.format != format || !Agree(*weights.arguments, *arguments))) {
      return Refuse(place, ": weights differ from those of another group: supported is one form");
    }
    weights = {arguments, format};
  }
  if (weights.arguments == nullptr) return Refuse("config_groups: none of them has weights");
  return weights;
}

absl::Status ReadStrategy(const Fields& arguments, FolderQuantization& quantization) {
  int64_t size = 0;
  STRUCTATTN_RETURN_IF_ERROR(arguments.Read("group_size", size));
  std::string strategy = size == 0 ? "tensor" : size == -1 ? "channel" : "group";
  STRUCTATTN_RETURN_IF_ERROR(arguments.Read("strategy", strategy));
  quantization.tile.inputs = ScaleTile::kAll;
  if (strategy == "tensor") {
    quantization.tile.outputs = ScaleTile::kAll;
    return absl::OkStatus();
  }
  if (strategy == "channel") return absl::OkStatus();
  if (strategy == "group") {
    if (size < 1 || size > ScaleTile::kMost) {
      return Refuse("group_size ", size, ": allowed are 1 to ", ScaleTile::kMost);
    }
    quantization.tile.inputs = size;
    return absl::OkStatus();
  }
  if (strategy == "block" && arguments.Find("block_structure") != nullptr) {
    STRUCTATTN_ASSIGN_OR_RETURN(
        quantization.tile, ReadScaleTile("block_structure", *arguments.Find("block_structure")));
    return absl::OkStatus();
  }
  return Refuse("strategy ", Quoted(strategy), ": supported are tensor, channel, group, block");
}

absl::Status ReadForm(const Weights& weights, FolderQuantization& quantization) {
  const Fields arguments(*weights.arguments);
  int64_t bits = 8;
  std::string type = "int";
  STRUCTATTN_RETURN_IF_ERROR(arguments.Read("num_bits", bits));
  STRUCTATTN_RETURN_IF_ERROR(arguments.Read("type", type));
  const bool plain_form = weights.format == "naive-quantized";
  if (weights.format == "pack-quantized" && type == "int" && (bits == 4 || bits == 8)) {
    quantization.form = QuantizedForm::kPackedIntegers;
  } else if ((plain_form || weights.format == "int-quantized") && type == "int" && bits == 8) {
    quantization.form = QuantizedForm::kIntegers;
  } else if ((plain_form || weights.format == "float-quantized") && type == "float" && bits == 8) {
    quantization.form = QuantizedForm::kFloat8;
  } else {
    return Refuse("format ", Quoted(weights.format), " of type ", Quoted(type), " and num_bits ",
                  bits,
                  ": supported are pack-quantized int of 4 or 8 bits, int-quantized int of 8 "
                  "bits, float-quantized float of 8 bits");
  }
  quantization.bits = static_cast<int>(bits);
  return absl::OkStatus();
}

// Whether inputs have their scales in another order: actorder "group" and, as older files write it,
// true.
absl::Status ReadOrder(const Fields& arguments, FolderQuantization& quantization) {
  const Json* order = arguments.Find("actorder");
  if (order == nullptr || *order == false || *order == "weight" || *order == "static") {
    return absl::OkStatus();
  }
  if (*order != true && *order != "group" && *order != "dynamic") {
    return Refuse("actorder ", Quoted(order->dump()),
                  ": supported are group, weight, static, dynamic");
  }
  quantization.needs_input_map = true;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<FolderQuantization> ReadCompressedTensors(const Fields& fields) {
  for (const std::string_view key : {"sparsity_config", "transform_config"}) {
    const Json* value = fields.Find(key);
    if (value == nullptr || value->empty()) continue;
    const Json* format = value->is_object() ? Fields(*value).Find("format") : nullptr;
    if (format != nullptr && *format == "dense") continue;
    return Refuse(key, " ", Quoted(value->dump()), ": supported is none");
  }
  STRUCTATTN_ASSIGN_OR_RETURN(const Weights weights, FindWeights(fields));
  FolderQuantization quantization;
  STRUCTATTN_RETURN_IF_ERROR(ReadForm(weights, quantization));
  const Fields arguments(*weights.arguments);
  STRUCTATTN_RETURN_IF_ERROR(ReadStrategy(arguments, quantization));
  STRUCTATTN_RETURN_IF_ERROR(ReadOrder(arguments, quantization));
  bool symmetric = true;
  STRUCTATTN_RETURN_IF_ERROR(arguments.Read("symmetric", symmetric));
  quantization.has_zeros = !symmetric;
  if (!symmetric && quantization.form == QuantizedForm::kFloat8) {
    return Refuse("symmetric false of type float: supported is true");
  }
  if (!symmetric && quantization.tile.outputs != 1) {
    return Refuse("symmetric false where outputs share a scale: supported is true");
  }
  return quantization;
}

}  // namespace structattn
