// quantization_config as publishers write it, and the refusals of what is not supported.
#include "server/model/read_quantization.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace structattn {
namespace {

using testing::HasSubstr;

FolderQuantization Read(const Json& config) {
  const absl::StatusOr<FolderQuantization> quantization = ReadFolderQuantization(config);
  EXPECT_TRUE(quantization.ok()) << quantization.status();
  return quantization.value_or(FolderQuantization());
}

std::string ErrorOf(const Json& config) {
  return std::string(ReadFolderQuantization(config).status().message());
}

Json Gptq() {
  return {{"quant_method", "gptq"},
          {"bits", 4},
          {"group_size", 128},
          {"desc_act", false},
          {"damp_percent", 0.01},
          {"sym", true},
          {"model_file_base_name", nullptr},
          {"true_sequential", true}};
}

Json Compressed(const Json& weights, std::string_view format) {
  Json all = {{"actorder", nullptr},   {"block_structure", nullptr},
              {"dynamic", false},      {"group_size", nullptr},
              {"num_bits", 8},         {"observer", "minmax"},
              {"strategy", "channel"}, {"symmetric", true},
              {"type", "int"}};
  if (!weights.is_null()) all.update(weights);
  const Json group = {{"input_activations", nullptr},
                      {"output_activations", nullptr},
                      {"targets", {"Linear"}},
                      {"weights", all}};
  return {{"quant_method", "compressed-tensors"},
          {"config_groups", {{"group_0", group}}},
          {"format", format},
          {"ignore", {"lm_head"}},
          {"kv_cache_scheme", nullptr},
          {"quantization_status", "compressed"}};
}

Json With(Json config, const Json& changes) {
  config.update(changes);
  return config;
}

TEST(ReadQuantizationTest, Gptq) {
  const FolderQuantization quantization = Read(Gptq());
  EXPECT_EQ(quantization.form, QuantizedForm::kGptq);
  EXPECT_EQ(quantization.bits, 4);
  EXPECT_EQ(quantization.tile.outputs, 1);
  EXPECT_EQ(quantization.tile.inputs, 128);
  EXPECT_TRUE(quantization.zeros_less_one);
  EXPECT_FALSE(quantization.needs_input_map);
  EXPECT_EQ(quantization.name, "gptq_4bit_g128");
  const FolderQuantization other =
      Read(With(Gptq(), {{"bits", 8},
                         {"group_size", -1},
                         {"desc_act", true},
                         {"checkpoint_format", "gptq_v2"},
                         {"dynamic", {{"-:.*gate", Json::object()}}}}));
  EXPECT_FALSE(other.zeros_less_one);
  EXPECT_TRUE(other.needs_input_map);
  EXPECT_EQ(other.tile.inputs, ScaleTile::kAll);
  EXPECT_EQ(other.name, "gptq_8bit_channel");
}

TEST(ReadQuantizationTest, Awq) {
  const FolderQuantization quantization = Read({{"quant_method", "awq"},
                                                {"bits", 4},
                                                {"group_size", 64},
                                                {"version", "GEMM"},
                                                {"zero_point", true},
                                                {"modules_to_not_convert", nullptr}});
  EXPECT_EQ(quantization.form, QuantizedForm::kAwq);
  EXPECT_EQ(quantization.name, "awq_4bit_g64");
}

TEST(ReadQuantizationTest, Fp8) {
  const Json config = {{"quant_method", "fp8"},
                       {"activation_scheme", "dynamic"},
                       {"fmt", "e4m3"},
                       {"weight_block_size", {128, 64}},
                       {"modules_to_not_convert", {"lm_head"}}};
  const FolderQuantization quantization = Read(config);
  EXPECT_EQ(quantization.form, QuantizedForm::kFloat8);
  EXPECT_EQ(quantization.tile.outputs, 128);
  EXPECT_EQ(quantization.tile.inputs, 64);
  EXPECT_EQ(quantization.name, "fp8_128x64");
  EXPECT_EQ(Read(With(config, {{"weight_block_size", nullptr}})).name, "fp8_tensor");
}

TEST(ReadQuantizationTest, CompressedTensors) {
  const FolderQuantization packed = Read(Compressed({{"num_bits", 4},
                                                     {"strategy", "group"},
                                                     {"group_size", 128},
                                                     {"actorder", "group"},
                                                     {"symmetric", false}},
                                                    "pack-quantized"));
  EXPECT_EQ(packed.form, QuantizedForm::kPackedIntegers);
  EXPECT_TRUE(packed.needs_input_map);
  EXPECT_TRUE(packed.has_zeros);
  EXPECT_EQ(packed.name, "compressed_4bit_g128");
  const FolderQuantization floats = Read(Compressed({{"type", "float"}}, "float-quantized"));
  EXPECT_EQ(floats.form, QuantizedForm::kFloat8);
  EXPECT_EQ(floats.name, "compressed_fp8_channel");
  const FolderQuantization integers = Read(Compressed({{"strategy", "tensor"}}, "int-quantized"));
  EXPECT_EQ(integers.form, QuantizedForm::kIntegers);
  EXPECT_FALSE(integers.has_zeros);
  EXPECT_EQ(integers.name, "compressed_8bit_tensor");
  const Json tiles = {{"type", "float"}, {"strategy", "block"}, {"block_structure", {128, 128}}};
  EXPECT_EQ(Read(Compressed(tiles, "float-quantized")).name, "compressed_fp8_128x128");
}

TEST(ReadQuantizationTest, SeveralGroupsMustAgree) {
  Json config = Compressed({{"type", "float"}}, "float-quantized");
  config["config_groups"]["group_1"] = config["config_groups"]["group_0"];
  config["config_groups"]["group_2"] = {{"weights", nullptr}};
  EXPECT_EQ(Read(config).form, QuantizedForm::kFloat8);
  config["config_groups"]["group_1"]["weights"]["num_bits"] = 4;
  EXPECT_THAT(ErrorOf(config), HasSubstr("'group_1': weights differ"));
}

TEST(ReadQuantizationTest, RefusesOtherMethodsByName) {
  for (const std::string_view method : {"bitsandbytes", "hqq", "eetq", "fbgemm_fp8", "exl2",
                                        "quanto", "aqlm", "torchao", "mxfp4"}) {
    EXPECT_THAT(ErrorOf({{"quant_method", method}}),
                HasSubstr("quantization_config: quant_method '" + std::string(method) +
                          "': supported are gptq, awq, fp8, compressed-tensors"));
  }
  // As mlx writes it.
  EXPECT_THAT(ErrorOf({{"group_size", 64}, {"bits", 4}}), HasSubstr("quant_method 'unnamed'"));
  EXPECT_THAT(ErrorOf("gptq"), HasSubstr("quantization_config is"));
}

TEST(ReadQuantizationTest, RefusesSettingsByKeyAndValue) {
  const auto fp8 = [](const Json& changes) { return With({{"quant_method", "fp8"}}, changes); };
  const auto awq = [](const Json& changes) { return With({{"quant_method", "awq"}}, changes); };
  const std::pair<Json, std::string_view> cases[] = {
      {With(Gptq(), {{"bits", 3}}), "(gptq): bits 3: supported are 4, 8"},
      {With(Gptq(), {{"bits", 2}}), "bits 2: supported"},
      {With(Gptq(), {{"bits", nullptr}}), "bits is missing"},
      {With(Gptq(), {{"bits", "4"}}), "bits is '\\\"4\\\"'"},
      {With(Gptq(), {{"group_size", 0}}), "group_size 0: allowed are -1 and 1 to"},
      {With(Gptq(), {{"checkpoint_format", "marlin"}}), "checkpoint_format 'marlin': supported"},
      {With(Gptq(), {{"is_marlin_format", true}}), "is_marlin_format true"},
      {With(Gptq(), {{"pack_dtype", "int16"}}), "pack_dtype 'int16': supported is int32"},
      {With(Gptq(), {{"dynamic", {{".*down", {{"bits", 8}}}}}}), "dynamic '.*down': settings"},
      {With(Gptq(), {{"rotation", "hadamard"}}), "rotation '\\\"hadamard\\\"'"},
      {awq({{"bits", 8}}), "(awq): bits 8: supported is 4"},
      {awq({{"version", "gemv"}}), "version 'gemv': supported is gemm"},
      {awq({{"zero_point", false}}), "zero_point false: supported is true"},
      {fp8({{"fmt", "e5m2"}}), "(fp8): fmt 'e5m2': supported is e4m3"},
      {fp8({{"scale_fmt", "ue8m0"}}), "scale_fmt 'ue8m0': supported is float"},
      {fp8({{"weight_block_size", {128}}}), "weight_block_size '[128]': allowed are two"},
      {fp8({{"weight_block_size", {0, 1}}}), "weight_block_size '[0,1]'"},
      {Compressed({}, "nvfp4-pack-quantized"), "format 'nvfp4-pack-quantized' of type 'int'"},
      {Compressed({{"num_bits", 3}}, "pack-quantized"), "num_bits 3: supported"},
      {Compressed({{"strategy", "token"}}, "int-quantized"), "strategy 'token': supported"},
      {Compressed({{"strategy", "group"}}, "pack-quantized"), "group_size 0: allowed are 1"},
      {Compressed({{"actorder", 3}}, "pack-quantized"), "actorder '3': supported"},
      {Compressed({{"symmetric", false}, {"type", "float"}}, "float-quantized"), "symmetric false"},
      {Compressed({{"symmetric", false}, {"strategy", "tensor"}}, "pack-quantized"),
       "symmetric false where outputs share a scale"},
      {With(Compressed({}, "pack-quantized"), {{"config_groups", Json::object()}}), "none of them"},
      {With(Compressed({}, "pack-quantized"), {{"transform_config", {{"R1", 1}}}}),
       "transform_config"},
  };
  for (const auto& [config, message] : cases) {
    EXPECT_THAT(ErrorOf(config), HasSubstr(std::string(message)));
  }
}

}  // namespace
}  // namespace structattn
