// Shape check and view of plain tensors: see plain_tensor.h.
#include "server/model/plain_tensor.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_join.h"
#include "server/model/refusal.h"

namespace structattn {

absl::Status CheckShape(const TensorSpec& spec, std::span<const int64_t> shape) {
  const bool matrix = shape.size() == 2 && shape[0] == spec.rows && shape[1] == spec.columns;
  const bool vector = shape.size() == 1 && spec.rows == 1 && shape[0] == spec.columns;
  if (matrix || vector) return absl::OkStatus();
  const std::string needed =
      spec.rows == 1 ? Concat(spec.columns) : Concat(spec.rows, ", ", spec.columns);
  return Refuse("shape [", absl::StrJoin(shape, ", "), "], the config asks for [", needed, "]");
}

absl::Status CheckStackShape(const TensorSpec& spec, int64_t rows, std::span<const int64_t> shape) {
  const int64_t needed[] = {spec.experts, rows, spec.columns};
  if (std::ranges::equal(shape, needed)) return absl::OkStatus();
  return Refuse("shape [", absl::StrJoin(shape, ", "), "], the config asks for [",
                absl::StrJoin(needed, ", "), "]");
}

std::string_view BytesInStack(const TensorSpec& spec, const ExpertStack& stack,
                              std::string_view bytes) {
  const size_t row_bytes = bytes.size() / static_cast<size_t>(spec.experts * stack.rows);
  const auto first = static_cast<size_t>(spec.expert * stack.rows + stack.row_begin);
  return bytes.substr(first * row_bytes, static_cast<size_t>(spec.rows) * row_bytes);
}

LoadedMatrix ViewOrCopy(std::string_view bytes, DType dtype, const TensorSpec& spec) {
  LoadedMatrix matrix;
  matrix.view = {bytes.data(), dtype, spec.rows, spec.columns};
  if (reinterpret_cast<uintptr_t>(bytes.data()) % ByteSize(dtype) != 0) {
    matrix.owned = std::make_unique_for_overwrite<std::byte[]>(bytes.size());
    std::memcpy(matrix.owned.get(), bytes.data(), bytes.size());
    matrix.view.data = matrix.owned.get();
  }
  return matrix;
}

}  // namespace structattn
