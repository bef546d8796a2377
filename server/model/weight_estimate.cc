// Walks the table of tensors as LoadWeights does: see weight_estimate.h.
#include "server/model/weight_estimate.h"

#include <optional>
#include <set>
#include <string_view>

#include "absl/strings/str_join.h"
#include "kernels/quant/quant_format.h"
#include "server/model/tensor_table.h"

namespace structattn {
namespace {

// The format in which a matrix that is multiplied is kept; absent for plain numbers.
std::optional<QuantFormat> KeptFormat(const Checkpoint& checkpoint, const WeightForm& form,
                                      std::string_view name) {
  if (form.quantization == Quantization::kInt8) return QuantFormat::kQ8_0;
  if (form.quantization == Quantization::kNone || form.device != DeviceKind::kCpu) {
    return std::nullopt;
  }
  return checkpoint.StoredFormat(name);
}

int64_t Bytes(const TensorSpec& spec, DType dtype, std::optional<QuantFormat> format) {
  if (spec.rows == 1) return spec.columns * static_cast<int64_t>(sizeof(float));
  if (!format) return spec.rows * spec.columns * static_cast<int64_t>(ByteSize(dtype));
  const QuantBlockLayout& layout = QuantLayoutOf(*format);
  return spec.rows * ((spec.columns + layout.inputs() - 1) / layout.inputs()) * layout.bytes;
}

}  // namespace

WeightEstimate EstimateWeights(const Checkpoint& checkpoint, const WeightForm& form) {
  WeightEstimate estimate;
  std::set<std::string_view> formats;
  const auto add_multiplied = [&](const TensorSpec& spec) {
    const std::optional<QuantFormat> format = KeptFormat(checkpoint, form, spec.name);
    estimate.bytes += Bytes(spec, form.dtype, format);
    if (spec.rows == 1) return;
    const bool rounded = form.quantization == Quantization::kInt8;
    formats.insert(rounded ? "int8" : format ? Name(*format) : Name(form.dtype));
  };
  for (const TensorSpec& spec : ExpectedTensors(checkpoint.config())) {
    if (spec.destination != Destination::kEmbedding) {
      add_multiplied(spec);
      continue;
    }
    estimate.bytes += Bytes(spec, form.dtype, std::nullopt);
    const bool packed_again =
        form.device == DeviceKind::kCpu || form.quantization == Quantization::kInt8;
    if (checkpoint.config().tied_embeddings && packed_again) add_multiplied(spec);
  }
  estimate.format = absl::StrJoin(
      formats, "+", [](std::string* out, std::string_view name) { out->append(name); });
  return estimate;
}

}  // namespace structattn
