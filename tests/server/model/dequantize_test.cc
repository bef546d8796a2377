// Dequantisation against what PyPI `gguf` makes of the same quant blocks (testdata/dequantize.bin,
// written by the script next to it), bit for bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>

#include "server/model/ggml_encoding.h"

namespace structattn {
namespace {

struct Section {
  uint32_t type;
  std::string quant_blocks;
  std::vector<float> floats;
};

std::vector<Section> ReadFixture() {
  std::ifstream file(STRUCTATTN_SOURCE_DIR "/tests/server/model/testdata/dequantize.bin",
                     std::ios::binary);
  std::vector<Section> sections;
  uint32_t head[3];
  while (file.read(reinterpret_cast<char*>(head), sizeof(head))) {
    Section section{head[0], std::string(head[1], '\0'), std::vector<float>(head[2])};
    file.read(section.quant_blocks.data(), head[1]);
    file.read(reinterpret_cast<char*>(section.floats.data()), head[2] * sizeof(float));
    EXPECT_TRUE(file.good());
    sections.push_back(std::move(section));
  }
  return sections;
}

TEST(DequantizeTest, EqualsTheReferenceBitForBit) {
  std::set<uint32_t> seen;
  for (const Section& section : ReadFixture()) {
    const GgmlEncoding* encoding = FindGgmlEncoding(section.type);
    ASSERT_NE(encoding, nullptr) << section.type;
    seen.insert(section.type);
    std::vector<float> output(section.floats.size(), -1.0f);
    Dequantize(*encoding->quant_format, section.quant_blocks.data(),
               static_cast<int64_t>(output.size()) / encoding->quant_block_values, output.data());
    for (size_t i = 0; i < output.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(output[i]), std::bit_cast<uint32_t>(section.floats[i]))
          << encoding->name << " element " << i << ": " << output[i] << ", reference "
          << section.floats[i];
    }
  }
  EXPECT_EQ(seen.size(), 8u) << "the fixture does not cover every quantised encoding";
}

// A quant block expands to the same values wherever it stands, at any alignment.
TEST(DequantizeTest, QuantBlocksAreIndependent) {
  for (const Section& section : ReadFixture()) {
    const GgmlEncoding& encoding = *FindGgmlEncoding(section.type);
    const auto elements = static_cast<size_t>(encoding.quant_block_values);
    const auto bytes = static_cast<size_t>(encoding.quant_block_bytes);
    for (size_t block = 0; block * elements < section.floats.size(); ++block) {
      std::string shifted(1, 'x');
      shifted.append(section.quant_blocks, block * bytes, bytes);
      std::vector<float> output(elements);
      Dequantize(*encoding.quant_format, shifted.data() + 1, 1, output.data());
      EXPECT_EQ(std::memcmp(output.data(), &section.floats[block * elements], elements * 4), 0)
          << encoding.name << " block " << block;
    }
  }
}

TEST(DequantizeTest, NamesSupportedAndUnsupportedTypes) {
  EXPECT_EQ(FindGgmlEncoding(11), nullptr);
  EXPECT_EQ(GgmlTypeName(11), "Q3_K");
  EXPECT_EQ(GgmlTypeName(39), "MXFP4");
  EXPECT_EQ(GgmlTypeName(4), "type 4");
  EXPECT_EQ(GgmlTypeName(4000000000u), "type 4000000000");
  EXPECT_EQ(SupportedGgmlTypes(), "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K");
}

}  // namespace
}  // namespace structattn
