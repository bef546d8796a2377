// Numbers of E4M3 against its definition, and the scale of each tile of a matrix.
#include "kernels/quant/float8_matrix.h"

#include <gtest/gtest.h>

#include <cmath>

namespace structattn {
namespace {

TEST(Float8MatrixTest, NumbersAreThoseOfE4m3) {
  EXPECT_EQ(FromFloat8(0x00), 0.0f);
  EXPECT_TRUE(std::signbit(FromFloat8(0x80)));
  EXPECT_EQ(FromFloat8(0x01), 0x1p-9f) << "the least subnormal";
  EXPECT_EQ(FromFloat8(0x07), 7 * 0x1p-9f);
  EXPECT_EQ(FromFloat8(0x08), 0x1p-6f) << "the least normal";
  EXPECT_EQ(FromFloat8(0x38), 1.0f);
  EXPECT_EQ(FromFloat8(0xb9), -1.125f);
  EXPECT_EQ(FromFloat8(0x7e), 448.0f) << "the largest";
  EXPECT_TRUE(std::isnan(FromFloat8(0x7f)));
  EXPECT_TRUE(std::isnan(FromFloat8(0xff)));
  for (int bits = 1; bits < 0x7f; ++bits) {
    EXPECT_GT(FromFloat8(static_cast<uint8_t>(bits)), FromFloat8(static_cast<uint8_t>(bits - 1)));
  }
}

TEST(Float8MatrixTest, EachTileHasItsScale) {
  std::vector<uint8_t> ones(5 * 7, 0x38);
  Float8Matrix matrix = {.data = ones.data(),
                         .outputs = 5,
                         .inputs = 7,
                         .outputs_per_scale = 2,
                         .inputs_per_scale = 3,
                         .scales = {1, 2, 3, 4, 5, 6, 7, 8, 9}};
  for (int64_t output = 0; output < 5; ++output) {
    float values[7];
    matrix.ExpandRow(output, values);
    for (int64_t input = 0; input < 7; ++input) {
      EXPECT_EQ(values[input], static_cast<float>(1 + output / 2 * 3 + input / 3));
    }
  }
}

}  // namespace
}  // namespace structattn
