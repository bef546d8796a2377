// Quantised folders of every form: they open, are held where quant blocks can hold them, and a
// tensor that is missing or wrong is refused by file, name and value.
#include "server/model/quantized_matrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>

#include "server/model/checkpoint.h"
#include "tests/server/model/quantized_files.h"

namespace structattn {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr std::string_view kModule = "model.layers.1.mlp.down_proj.";  // [32, 48]
const std::string kDown = std::string(kModule) + "weight";

using Tensors = std::vector<FileTensor>;

FileTensor& Find(Tensors& tensors, std::string_view suffix) {
  const auto found = std::find_if(tensors.begin(), tensors.end(), [suffix](const FileTensor& one) {
    return one.name == std::string(kModule).append(suffix);
  });
  EXPECT_NE(found, tensors.end()) << suffix;
  return *found;
}

TEST(QuantizedMatrixTest, OpensEveryForm) {
  ThreadPool pool(2);
  for (const TinyForm& form : TinyForms()) {
    const TempDirectory directory;
    WriteTinyQuantizedModel(directory, form);
    const auto checkpoint = Checkpoint::Open(directory.path());
    ASSERT_TRUE(checkpoint.ok()) << form.name << ": " << checkpoint.status();
    const LoadedMatrix alone = (*checkpoint)->Read(kDown);
    const LoadedMatrix shared = (*checkpoint)->Read(kDown, &pool);
    EXPECT_EQ(alone.view.dtype, DType::kFloat32);
    EXPECT_EQ(std::memcmp(alone.view.data, shared.view.data, 32 * 48 * sizeof(float)), 0);
    EXPECT_NE((*checkpoint)->QuantizationOf(kDown), "");
    EXPECT_EQ((*checkpoint)->QuantizationOf("lm_head.weight"), "");
    EXPECT_FALSE((*checkpoint)->ReadQuantized("lm_head.weight", pool).has_value());
    // Scales of 16 inputs fit no chunk of 32; those of whole rows do.
    EXPECT_EQ((*checkpoint)->ReadQuantized(kDown, pool).has_value(), form.name == "integers");
  }
}

// 4-bit zeros one less, all of a word at once: stored 7 is 8, and 15 carries into its neighbour.
TEST(QuantizedMatrixTest, GptqAddsOneToTheZerosOfAWord) {
  const TempDirectory directory;
  const TinyForm& form = FindTinyForm("gptq");
  WriteTinyQuantizedModel(directory, form);
  Tensors tensors = TinyQuantizedTensors(form);
  FileTensor& codes = Find(tensors, "qweight");
  codes.bytes.assign(codes.bytes.size(), '\0');
  FileTensor& zeros = Find(tensors, "qzeros");
  zeros.bytes = BytesOf(uint32_t{0x777770f7}) + std::string(zeros.bytes.size() - 4, '\x77');
  FileTensor& scales = Find(tensors, "scales");
  scales.bytes.clear();
  for (int i = 0; i < 3 * 32; ++i) scales.bytes += BytesOf(uint16_t{0x3c00});
  directory.Write("model.safetensors", SafetensorsBytes(tensors));
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const LoadedMatrix matrix = (*checkpoint)->Read(kDown);
  const auto value = [&](int64_t output) {
    return static_cast<const float*>(matrix.view.data)[output * 48];
  };
  EXPECT_EQ(value(0), -8.0f);
  EXPECT_EQ(value(1), 0.0f) << "15 + 1 has no fifth bit";
  EXPECT_EQ(value(2), -2.0f) << "0 + 1 and the carry";
  EXPECT_EQ(value(3), -8.0f);
  EXPECT_EQ(value(31), -8.0f);
}

struct Wrong {
  std::string_view form;
  std::function<void(Tensors&)> change;
  std::string tensor;
  std::string message;
};

void ExpectRefused(const Wrong& wrong) {
  const TempDirectory directory;
  const TinyForm& form = FindTinyForm(wrong.form);
  WriteTinyQuantizedModel(directory, form);
  Tensors tensors = TinyQuantizedTensors(form);
  wrong.change(tensors);
  directory.Write("model.safetensors", SafetensorsBytes(tensors));
  const absl::Status status = Checkpoint::Open(directory.path()).status();
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(directory.Path("model.safetensors")),
                    HasSubstr(std::string(kModule) + wrong.tensor), HasSubstr(wrong.message)));
}

std::function<void(Tensors&)> Without(std::string_view suffix) {
  return [suffix](Tensors& tensors) {
    std::erase_if(tensors, [suffix](const FileTensor& tensor) {
      return tensor.name == std::string(kModule).append(suffix);
    });
  };
}

std::function<void(Tensors&)> With(std::string_view suffix, std::string_view dtype,
                                   const std::vector<int64_t>& shape, int64_t bytes) {
  return [=](Tensors& tensors) {
    FileTensor& tensor = Find(tensors, suffix);
    tensor.dtype = dtype;
    tensor.shape = shape;
    tensor.bytes.assign(static_cast<size_t>(bytes), '\1');
  };
}

std::function<void(Tensors&)> SetWord(std::string_view suffix, size_t place, int32_t value) {
  return
      [=](Tensors& tensors) { Find(tensors, suffix).bytes.replace(4 * place, 4, BytesOf(value)); };
}

TEST(QuantizedMatrixTest, RefusesTensorsThatAreMissing) {
  for (const auto& [form, codes, missing] : {std::tuple("gptq", "qweight", "qzeros"),
                                             {"gptq", "qweight", "scales"},
                                             {"awq", "qweight", "qzeros"},
                                             {"awq", "qweight", "scales"},
                                             {"fp8", "weight", "weight_scale_inv"},
                                             {"packed", "weight_packed", "weight_scale"},
                                             {"packed", "weight_packed", "weight_zero_point"},
                                             {"packed", "weight_packed", "weight_shape"},
                                             {"integers", "weight", "weight_scale"}}) {
    ExpectRefused(
        {form, Without(missing), codes, std::string(kModule) + missing + "' is missing beside it"});
  }
  ExpectRefused({"gptq", Without("qweight"), "weight", "tensor is missing"});
}

TEST(QuantizedMatrixTest, RefusesWrongTensors) {
  const auto add_plain = [](Tensors& tensors) {
    tensors.push_back({kDown, "F32", {32, 48}, std::string(32 * 48 * 4, '\0')});
  };
  const auto make_plain = With("weight", "F32", {32, 48}, 32 * 48 * 4);
  const Wrong cases[] = {
      {"gptq", With("qweight", "I32", {32, 6}, 768), "qweight",
       "shape [32, 6], the config asks for [6, 32]"},
      {"gptq", With("qweight", "I64", {6, 32}, 1536), "qweight", "dtype I64: supported is I32"},
      {"gptq", With("qzeros", "I32", {1, 4}, 16), "qzeros", "the config asks for [3, 4]"},
      {"gptq", With("scales", "F16", {1, 32}, 64), "scales", "the config asks for [3, 32]"},
      {"gptq", With("scales", "I16", {3, 32}, 192), "scales", "dtype I16: supported are F32, F16"},
      {"gptq", SetWord("g_idx", 5, 3), "g_idx", "[5] is 3: allowed are 0 to 2"},
      {"gptq", SetWord("g_idx", 5, -1), "g_idx", "[5] is -1: allowed are 0 to 2"},
      {"gptq", SetWord("g_idx", 5, 2), "g_idx", "[5] is 2, the config asks for 0"},
      {"gptq", add_plain, "qweight", "'" + kDown + "' is there too"},
      {"awq", With("qweight", "I32", {6, 32}, 768), "qweight", "the config asks for [48, 4]"},
      {"awq", With("qzeros", "I32", {3, 32}, 384), "qzeros", "the config asks for [3, 4]"},
      {"fp8", With("weight", "F8_E5M2", {32, 48}, 1536), "weight", "supported is F8_E4M3"},
      {"fp8", With("weight_scale_inv", "F16", {1, 4}, 8), "weight_scale_inv", "asks for [1, 3]"},
      {"fp8", make_plain, "weight_scale_inv", "'" + kDown + "' beside it is not quantized"},
      {"packed", With("weight_shape", "I64", {2}, 16), "weight_shape", "asks for [32, 48]"},
      {"packed", With("weight_packed", "I32", {32, 48}, 6144), "weight_packed", "asks for [32, 6]"},
      {"packed", With("weight_zero_point", "I32", {32, 3}, 384), "weight_zero_point", "[4, 3]"},
      {"float8", With("weight_scale", "BF16", {48, 1}, 96), "weight_scale", "asks for [32, 1]"},
  };
  for (const Wrong& wrong : cases) ExpectRefused(wrong);
}

TEST(QuantizedMatrixTest, RefusesSizesThatDoNotDivide) {
  const TempDirectory directory;
  WriteTinyQuantizedModel(directory, FindTinyForm("gptq"));
  nlohmann::json config = TinyQuantizedConfig(FindTinyForm("gptq"));
  config["quantization_config"]["group_size"] = 20;
  directory.Write("config.json", config.dump());
  EXPECT_THAT(std::string(Checkpoint::Open(directory.path()).status().message()),
              HasSubstr("qweight': 32 inputs: group_size 20 does not divide them"));
}

TEST(QuantizedMatrixTest, AnOrderOfActivationsNeedsItsMap) {
  const TempDirectory directory;
  const TinyForm& form = FindTinyForm("gptq");
  WriteTinyQuantizedModel(directory, form);
  nlohmann::json config = TinyQuantizedConfig(form);
  Tensors tensors = TinyQuantizedTensors(form);
  Without("g_idx")(tensors);
  directory.Write("model.safetensors", SafetensorsBytes(tensors));
  EXPECT_TRUE(Checkpoint::Open(directory.path()).ok()) << "in order, it is not needed";
  config["quantization_config"]["desc_act"] = true;
  directory.Write("config.json", config.dump());
  EXPECT_THAT(std::string(Checkpoint::Open(directory.path()).status().message()),
              HasSubstr("g_idx' is missing beside it"));
}

// Scales of one number for a matrix may have any axes of one, or none.
TEST(QuantizedMatrixTest, ScalesMayLeaveOutAxesOfOne) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{32}, std::vector<int64_t>{32, 1}}) {
    const TempDirectory directory;
    WriteTinyQuantizedModel(directory, FindTinyForm("float8"));
    Tensors tensors = TinyQuantizedTensors(FindTinyForm("float8"));
    Find(tensors, "weight_scale").shape = shape;
    directory.Write("model.safetensors", SafetensorsBytes(tensors));
    EXPECT_TRUE(Checkpoint::Open(directory.path()).ok());
  }
}

}  // namespace
}  // namespace structattn
