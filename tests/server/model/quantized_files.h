// Small quantised folders for the tests of server/model: the tiny model's matrices in the tensors
// of each form, with random contents. Independent of the readers; never linked into a program.
#ifndef STRUCTATTN_TESTS_SERVER_MODEL_QUANTIZED_FILES_H_
#define STRUCTATTN_TESTS_SERVER_MODEL_QUANTIZED_FILES_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tests/server/model/model_files.h"

namespace structattn {

struct TinyForm {
  std::string_view name;
  nlohmann::json quantization_config;
  int bits;
  int64_t inputs_per_scale;  // Divides 32 and 48.
};

// gptq, gptq-8, awq, fp8, packed, packed-8, integers, float8.
const std::vector<TinyForm>& TinyForms();
const TinyForm& FindTinyForm(std::string_view name);

// TinyTensors, with the matrices of the layers in that form.
std::vector<FileTensor> TinyQuantizedTensors(const TinyForm& form);

// config.json and tokenizer.json of such a folder.
nlohmann::json TinyQuantizedConfig(const TinyForm& form);
void WriteTinyQuantizedModel(const TempDirectory& directory, const TinyForm& form);

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_SERVER_MODEL_QUANTIZED_FILES_H_
