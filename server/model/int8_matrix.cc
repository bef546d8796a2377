// See int8_matrix.h.
#include "server/model/int8_matrix.h"

#include <ATen/ATen.h>

#include <cstring>
#include <vector>

#include "kernels/check.h"
#include "kernels/linear/linear.h"
#include "kernels/quant/quant_format.h"

namespace structattn {
namespace {

// A block of Q8_0 in a row: a scale, then its codes.
constexpr int64_t kScaleBytes = sizeof(Float16);

// The codes and scales of one part on the host, rows end to end.
struct HostInt8 {
  std::vector<int8_t> codes;
  std::vector<Float16> scales;
};

HostInt8 Split(const QuantMatrixView& matrix) {
  const int64_t blocks = matrix.rows * matrix.row_quant_blocks();
  HostInt8 split;
  split.codes.resize(blocks * kInt8ScaleInputs);
  split.scales.resize(blocks);
  const char* from = static_cast<const char*>(matrix.data);
  for (int64_t block = 0; block < blocks; ++block, from += QuantLayoutOf(matrix.format).bytes) {
    std::memcpy(&split.scales[block], from, kScaleBytes);
    std::memcpy(&split.codes[block * kInt8ScaleInputs], from + kScaleBytes, kInt8ScaleInputs);
  }
  return split;
}

}  // namespace

bool FitsInt8(int64_t outputs, int64_t inputs) {
  return inputs % kInt8ScaleInputs == 0 && outputs <= kMostInt8Outputs;
}

Int8Matrix MakeInt8Matrix(std::span<const MatrixView> parts, ThreadPool& pool,
                          WeightUpload& upload) {
  STRUCTATTN_CHECK(!parts.empty() && parts.front().columns % kInt8ScaleInputs == 0);
  const int64_t inputs = parts.front().columns;
  std::vector<HostInt8> split;
  std::vector<MatrixView> codes;
  std::vector<MatrixView> scales;
  for (const MatrixView& part : parts) {
    const QuantMatrix quantized = QuantizeRows(part, pool);
    split.push_back(Split(quantized.view));
    // Pairs of codes travel as one 16-bit element, unchanged.
    codes.push_back({split.back().codes.data(), DType::kFloat16, part.rows, inputs / 2});
    scales.push_back(
        {split.back().scales.data(), DType::kFloat16, part.rows, inputs / kInt8ScaleInputs});
  }
  return {.codes = upload.Stack(codes, DType::kFloat16).view(at::kChar),
          .scales = upload.Stack(scales, DType::kFloat16)};
}

}  // namespace structattn
