// Small quantised folders: see quantized_files.h.
#include "tests/server/model/quantized_files.h"

#include <random>

#include "kernels/check.h"
#include "server/model/model_config.h"

namespace structattn {
namespace {

using Json = nlohmann::json;

Json CompressedTensors(std::string_view format, const Json& weights) {
  return {{"quant_method", "compressed-tensors"},
          {"format", format},
          {"config_groups", {{"group_0", {{"weights", weights}}}}}};
}

std::string RandomBytes(int64_t count, std::mt19937& random) {
  std::string bytes(static_cast<size_t>(count), '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

// Halves from 2^-8 up, so that all are finite.
FileTensor Scales(const std::string& name, std::vector<int64_t> shape, std::mt19937& random) {
  FileTensor tensor = {name, "F16", shape, ""};
  const int64_t count = shape[0] * shape[1];
  for (int64_t i = 0; i < count; ++i) {
    tensor.bytes += BytesOf(static_cast<uint16_t>(0x1c00 + random() % 1024));
  }
  return tensor;
}

// Appends the tensors of one matrix [rows, columns].
void Append(const TinyForm& form, const FileTensor& matrix, std::mt19937& random,
            std::vector<FileTensor>& tensors) {
  const int64_t rows = matrix.shape[0];
  const int64_t columns = matrix.shape[1];
  const int64_t per_word = 32 / form.bits;
  const int64_t quant_blocks = columns / form.inputs_per_scale;
  const std::string module = matrix.name.substr(0, matrix.name.size() - 6);
  const auto add = [&](std::string_view suffix, std::string_view dtype,
                       const std::vector<int64_t>& shape, int64_t bytes) {
    tensors.push_back({module + std::string(suffix), std::string(dtype), shape,
                       RandomBytes(shape[0] * shape[1] * bytes, random)});
  };
  if (form.name.starts_with("gptq")) {
    add("qweight", "I32", {columns / per_word, rows}, 4);
    add("qzeros", "I32", {quant_blocks, rows / per_word}, 4);
    tensors.push_back(Scales(module + "scales", {quant_blocks, rows}, random));
    tensors.push_back({module + "g_idx", "I32", {columns}, ""});
    for (int64_t i = 0; i < columns; ++i) {
      tensors.back().bytes += BytesOf(static_cast<int32_t>(i / form.inputs_per_scale));
    }
  } else if (form.name == "awq") {
    add("qweight", "I32", {columns, rows / 8}, 4);
    add("qzeros", "I32", {quant_blocks, rows / 8}, 4);
    tensors.push_back(Scales(module + "scales", {quant_blocks, rows}, random));
  } else if (form.name == "fp8") {
    add("weight", "F8_E4M3", {rows, columns}, 1);
    tensors.push_back(
        Scales(module + "weight_scale_inv", {(rows + 31) / 32, quant_blocks}, random));
  } else {
    const bool packed = form.name.starts_with("packed");
    if (packed) {
      add("weight_packed", "I32", {rows, columns / per_word}, 4);
      add("weight_zero_point", "I32", {rows / per_word, quant_blocks}, 4);
      tensors.push_back(
          {module + "weight_shape", "I64", {2}, BytesOf(rows).append(BytesOf(columns))});
    } else {
      add("weight", form.name == "integers" ? "I8" : "F8_E4M3", {rows, columns}, 1);
    }
    tensors.push_back(Scales(module + "weight_scale", {rows, packed ? quant_blocks : 1}, random));
  }
}

}  // namespace

const std::vector<TinyForm>& TinyForms() {
  static const std::vector<TinyForm> kForms = {
      {"gptq", {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 16}}, 4, 16},
      {"gptq-8", {{"quant_method", "gptq"}, {"bits", 8}, {"group_size", 16}}, 8, 16},
      {"awq", {{"quant_method", "awq"}, {"group_size", 16}}, 4, 16},
      {"fp8", {{"quant_method", "fp8"}, {"weight_block_size", {32, 16}}}, 8, 16},
      {"packed",
       CompressedTensors("pack-quantized",
                         {{"num_bits", 4}, {"group_size", 16}, {"symmetric", false}}),
       4, 16},
      {"packed-8",
       CompressedTensors("pack-quantized",
                         {{"num_bits", 8}, {"group_size", 16}, {"symmetric", false}}),
       8, 16},
      {"integers", CompressedTensors("int-quantized", {{"strategy", "channel"}}), 8, 16},
      {"float8", CompressedTensors("float-quantized", {{"strategy", "channel"}, {"type", "float"}}),
       8, 16},
  };
  return kForms;
}

const TinyForm& FindTinyForm(std::string_view name) {
  for (const TinyForm& form : TinyForms()) {
    if (form.name == name) return form;
  }
  STRUCTATTN_CHECK(false);
}

std::vector<FileTensor> TinyQuantizedTensors(const TinyForm& form) {
  std::mt19937 random(11);
  std::vector<FileTensor> tensors;
  for (const FileTensor& tensor : TinyTensors(*ParseModelConfig(TinyConfig().dump(), ""), "F32")) {
    if (tensor.name.ends_with("_proj.weight")) {
      Append(form, tensor, random, tensors);
    } else {
      tensors.push_back(tensor);
    }
  }
  return tensors;
}

nlohmann::json TinyQuantizedConfig(const TinyForm& form) {
  Json config = TinyConfig();
  config["quantization_config"] = form.quantization_config;
  return config;
}

void WriteTinyQuantizedModel(const TempDirectory& directory, const TinyForm& form) {
  directory.Write("config.json", TinyQuantizedConfig(form).dump());
  directory.Write("tokenizer.json", TinyTokenizer());
  directory.Write("model.safetensors", SafetensorsBytes(TinyQuantizedTensors(form)));
}

}  // namespace structattn
