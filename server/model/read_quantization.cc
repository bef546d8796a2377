// The methods' own settings: GPTQ and AWQ, FP8. Those of compressed-tensors are in
// compressed_tensors.cc. See read_quantization.h.
#include "server/model/read_quantization.h"

#include <initializer_list>
#include <string_view>

#include "absl/strings/ascii.h"
#include "server/model/compressed_tensors.h"
#include "server/model/refusal.h"
#include "server/model/scale_tile.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

// The key's string in lower case, or that of the first of `keys` that is there.
absl::StatusOr<std::string> ReadLower(const Fields& fields,
                                      std::initializer_list<std::string_view> keys,
                                      std::string_view missing) {
  for (const std::string_view key : keys) {
    std::string value;
    STRUCTATTN_RETURN_IF_ERROR(fields.Read(key, value));
    if (!value.empty()) return absl::AsciiStrToLower(value);
  }
  return std::string(missing);
}

absl::Status RefuseUnless(std::string_view key, std::string_view value, std::string_view allowed) {
  if (value == allowed) return absl::OkStatus();
  return Refuse(key, " ", Quoted(value), ": supported is ", allowed);
}

// `group_size`: -1 is a whole row.
absl::Status ReadGroupSize(const Fields& fields, FolderQuantization& quantization) {
  int64_t size = 128;
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("group_size", size));
  if (size != -1 && (size < 1 || size > ScaleTile::kMost)) {
    return Refuse("group_size ", size, ": allowed are -1 and 1 to ", ScaleTile::kMost);
  }
  quantization.tile.inputs = size == -1 ? ScaleTile::kAll : size;
  return absl::OkStatus();
}

absl::Status ReadBits(const Fields& fields, int64_t missing, bool eight_too,
                      FolderQuantization& quantization) {
  int64_t bits = missing;
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("bits", bits));
  if (bits != 4 && !(eight_too && bits == 8)) {
    return Refuse("bits ", bits, ": supported ", eight_too ? "are 4, 8" : "is 4");
  }
  quantization.bits = static_cast<int>(bits);
  return absl::OkStatus();
}

// Settings of GPTQModel by which matrices differ from what the tensors alone say. Rules that begin
// with "-:" name modules that are not quantized, as the stored tensors do.
absl::Status RefuseGptqExtras(const Fields& fields) {
  if (const Json* rules = fields.Find("dynamic"); rules != nullptr && !rules->empty()) {
    if (!rules->is_object()) return Fields::WrongKind("dynamic", *rules, "an object");
    for (const auto& [rule, settings] : rules->items()) {
      if (rule.starts_with("-:")) continue;
      return Refuse(
          "dynamic ", Quoted(rule),
          ": settings of single modules are not supported, only rules that begin with -:");
    }
  }
  for (const std::string_view key : {"rotation", "adapter"}) {
    const Json* value = fields.Find(key);
    if (value == nullptr || value->empty()) continue;
    return Refuse(key, " ", Quoted(value->dump()), ": supported is none");
  }
  STRUCTATTN_ASSIGN_OR_RETURN(const std::string words, ReadLower(fields, {"pack_dtype"}, "int32"));
  return RefuseUnless("pack_dtype", words, "int32");
}

absl::StatusOr<FolderQuantization> ReadGptq(const Fields& fields) {
  FolderQuantization quantization;
  if (fields.Find("bits") == nullptr) return Refuse("bits is missing: supported are 4, 8");
  STRUCTATTN_RETURN_IF_ERROR(ReadBits(fields, 0, /*eight_too=*/true, quantization));
  STRUCTATTN_RETURN_IF_ERROR(ReadGroupSize(fields, quantization));
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("desc_act", quantization.needs_input_map));
  STRUCTATTN_ASSIGN_OR_RETURN(const std::string format,
                              ReadLower(fields, {"checkpoint_format", "format"}, "gptq"));
  if (format != "gptq" && format != "gptq_v2") {
    return Refuse("checkpoint_format ", Quoted(format), ": supported are gptq, gptq_v2");
  }
  quantization.zeros_less_one = format == "gptq";
  bool marlin = false;
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("is_marlin_format", marlin));
  if (marlin) return Refuse("is_marlin_format true: supported is false");
  STRUCTATTN_RETURN_IF_ERROR(RefuseGptqExtras(fields));
  return quantization;
}

absl::StatusOr<FolderQuantization> ReadAwq(const Fields& fields) {
  FolderQuantization quantization;
  quantization.form = QuantizedForm::kAwq;
  STRUCTATTN_RETURN_IF_ERROR(ReadBits(fields, 4, /*eight_too=*/false, quantization));
  STRUCTATTN_RETURN_IF_ERROR(ReadGroupSize(fields, quantization));
  STRUCTATTN_ASSIGN_OR_RETURN(
      const std::string version,
      ReadLower(fields, {"version", "checkpoint_format", "format"}, "gemm"));
  STRUCTATTN_RETURN_IF_ERROR(RefuseUnless("version", version, "gemm"));
  bool has_zeros = true;
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("zero_point", has_zeros));
  if (!has_zeros) return Refuse("zero_point false: supported is true");
  return quantization;
}

absl::StatusOr<FolderQuantization> ReadFp8(const Fields& fields) {
  FolderQuantization quantization;
  quantization.form = QuantizedForm::kFloat8;
  quantization.bits = 8;
  quantization.tile.outputs = ScaleTile::kAll;
  STRUCTATTN_ASSIGN_OR_RETURN(const std::string format, ReadLower(fields, {"fmt"}, "e4m3"));
  STRUCTATTN_RETURN_IF_ERROR(RefuseUnless("fmt", format, "e4m3"));
  STRUCTATTN_ASSIGN_OR_RETURN(const std::string scales, ReadLower(fields, {"scale_fmt"}, "float"));
  STRUCTATTN_RETURN_IF_ERROR(RefuseUnless("scale_fmt", scales, "float"));
  const Json* tile = fields.Find("weight_block_size");
  if (tile == nullptr) return quantization;
  STRUCTATTN_ASSIGN_OR_RETURN(quantization.tile, ReadScaleTile("weight_block_size", *tile));
  return quantization;
}

// "gptq_4bit_g128", "awq_4bit_channel", "fp8_128x128", "compressed_fp8_channel".
std::string NameOf(std::string_view method, const FolderQuantization& quantization) {
  const bool compressed = method == "compressed-tensors";
  std::string name(compressed ? "compressed" : method);
  if (quantization.form != QuantizedForm::kFloat8) {
    name += Concat("_", quantization.bits, "bit");
  } else if (compressed) {
    name += "_fp8";
  }
  return Concat(name, "_", Name(quantization.tile));
}

}  // namespace

absl::StatusOr<FolderQuantization> ReadFolderQuantization(const Json& quantization_config) {
  if (!quantization_config.is_object()) {
    return Fields::WrongKind("quantization_config", quantization_config, "an object");
  }
  const Fields fields(quantization_config);
  std::string method = "unnamed";
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("quant_method", method));
  absl::StatusOr<FolderQuantization> quantization;
  if (method == "gptq") {
    quantization = ReadGptq(fields);
  } else if (method == "awq") {
    quantization = ReadAwq(fields);
  } else if (method == "fp8") {
    quantization = ReadFp8(fields);
  } else if (method == "compressed-tensors") {
    quantization = ReadCompressedTensors(fields);
  } else {
    return Refuse("quantization_config: quant_method ", Quoted(method),
                  ": supported are gptq, awq, fp8, compressed-tensors");
  }
  if (!quantization.ok()) {
    return WithPrefix(Concat("quantization_config (", method, ")"), quantization.status());
  }
  quantization->name = NameOf(method, *quantization);
  return quantization;
}

}  // namespace structattn
