// LoadWeights: from the tensors of the table to the stacked, packed weights of the transformer.
#include <ATen/ATen.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "server/model/device.h"
#include "server/model/int8_matrix.h"
#include "server/model/refusal.h"
#include "server/model/tensor_table.h"
#include "server/model/transformer.h"
#include "server/model/weight_upload.h"
#include "server/model/weights_digest.h"

namespace structattn {
namespace {

class WeightLoader {
 public:
  WeightLoader(const Checkpoint& checkpoint, const TransformerOptions& options,
               const KernelContext& context)
      : checkpoint_(checkpoint),
        dtype_(options.dtype),
        quantization_(options.quantization),
        device_(options.device),
        context_(context) {
    if (!on_cpu()) upload_.emplace(options.device);
  }

  at::Tensor Vector(const std::string& name) { return ToDevice(HostFloats(name)); }

  at::Tensor Matrix(const std::string& name) {
    const LoadedMatrix matrix = checkpoint_.Read(name, context_.pool);
    if (!on_cpu()) return upload_->Stack({&matrix.view, 1}, dtype_);
    return AsTensor(matrix.view).to(ToScalarType(dtype_), /*non_blocking=*/false, /*copy=*/true);
  }

  // Matrices stacked, with their biases when there are any.
  LinearLayer Linear(std::span<const TensorSpec> tensors) {
    std::vector<std::string> names;
    std::vector<at::Tensor> biases;
    for (const TensorSpec& tensor : tensors) {
      if (tensor.is_bias) {
        biases.push_back(HostFloats(tensor.name));
      } else {
        names.push_back(tensor.name);
      }
    }
    return Stacked(names, biases.empty() ? at::Tensor() : ToDevice(at::cat(biases)));
  }

  // The same, never quantized, for the CPU. Its format is not counted: it is small.
  LinearLayer Router(std::span<const TensorSpec> tensors) {
    std::vector<LoadedRows> rows;
    for (const TensorSpec& tensor : tensors) {
      rows.push_back(
          {.plain = checkpoint_.Read(tensor.name, context_.pool), .quantized = std::nullopt});
    }
    std::vector<PackedWeight> parts;
    parts.push_back(PackPart(rows));
    linear_bytes_ += parts.back().bytes;
    return LinearLayer(std::move(parts), {});
  }

  // The output layer of tied embeddings: the CPU packs a copy of the table, other devices multiply
  // with the table itself.
  LinearLayer TiedOutput(const std::string& name, const at::Tensor& embedding) {
    if (on_cpu() ||
        (quantization_ == Quantization::kInt8 && FitsInt8(embedding.size(0), embedding.size(1)))) {
      return Stacked({name}, {});
    }
    formats_.emplace(Name(dtype_));
    linear_bytes_ += static_cast<int64_t>(embedding.nbytes());
    return LinearLayer(embedding, {});
  }

  // The formats of the matrices loaded so far, as TransformerWeights has them.
  std::string Format() const { return absl::StrJoin(formats_, "+"); }
  int64_t linear_bytes() const { return linear_bytes_; }

 private:
  static at::Tensor AsTensor(const MatrixView& view) {
    return at::from_blob(const_cast<void*>(view.data), {view.rows, view.columns},
                         ToScalarType(view.dtype));
  }

  LinearLayer Stacked(const std::vector<std::string>& names, const at::Tensor& bias) {
    if (on_cpu()) return LinearLayer(Pack(names), bias);
    std::vector<LoadedMatrix> matrices;
    std::vector<MatrixView> views;
    int64_t outputs = 0;
    for (const std::string& name : names) {
      matrices.push_back(checkpoint_.Read(name, context_.pool));
      views.push_back(matrices.back().view);
      outputs += views.back().rows;
    }
    if (quantization_ == Quantization::kInt8 && FitsInt8(outputs, views.front().columns)) {
      formats_.emplace("int8");
      Int8Matrix weight = MakeInt8Matrix(views, *context_.pool, *upload_);
      linear_bytes_ += weight.bytes();
      return LinearLayer(std::move(weight), dtype_, bias);
    }
    for (const std::string& name : names) AddPlainFormat(name);
    const at::Tensor weight = upload_->Stack(views, dtype_);
    linear_bytes_ += static_cast<int64_t>(weight.nbytes());
    return LinearLayer(weight, bias);
  }

  // Neighbours of one format become one part.
  std::vector<PackedWeight> Pack(const std::vector<std::string>& names) {
    std::vector<LoadedRows> rows;
    for (const std::string& name : names) rows.push_back(Load(name));
    std::vector<PackedWeight> parts;
    for (size_t begin = 0, end; begin < rows.size(); begin = end) {
      end = begin + 1;
      while (end < rows.size() && rows[end].format() == rows[begin].format()) ++end;
      parts.push_back(PackPart({rows.data() + begin, end - begin}));
      linear_bytes_ += parts.back().bytes;
    }
    return parts;
  }

  // One matrix, in the form in which it is packed.
  struct LoadedRows {
    LoadedMatrix plain;
    std::optional<QuantMatrix> quantized;  // Instead.

    std::optional<QuantFormat> format() const {
      return quantized.has_value() ? std::optional(quantized->view.format) : std::nullopt;
    }
  };

  LoadedRows Load(const std::string& name) {
    if (std::optional<QuantMatrix> quantized = LoadQuantized(name)) {
      AddQuantizedFormat(name, quantized->view.format);
      return {.plain = {}, .quantized = std::move(quantized)};
    }
    AddPlainFormat(name);
    return {.plain = checkpoint_.Read(name, context_.pool), .quantized = std::nullopt};
  }

  // What a matrix is multiplied as: a quantised folder's form keeps its name, and names the dtype
  // where it was expanded.
  void AddPlainFormat(const std::string& name) {
    const std::string stored = checkpoint_.QuantizationOf(name);
    const std::string_view separator = stored.empty() ? "" : ":";
    formats_.insert(Concat(stored, separator, Name(dtype_)));
  }
  void AddQuantizedFormat(const std::string& name, QuantFormat format) {
    const std::string stored = checkpoint_.QuantizationOf(name);
    if (quantization_ == Quantization::kInt8) {
      formats_.emplace("int8");
    } else {
      formats_.insert(stored.empty() ? std::string(Name(format)) : stored);
    }
  }

  // Absent where the form wants numbers.
  std::optional<QuantMatrix> LoadQuantized(const std::string& name) {
    if (quantization_ == Quantization::kNone) return std::nullopt;
    std::optional<QuantMatrix> stored = checkpoint_.ReadQuantized(name, *context_.pool);
    if (quantization_ == Quantization::kStored) return stored;
    if (stored.has_value() && stored->view.format == QuantFormat::kQ8_0) return stored;
    return QuantizeRows(checkpoint_.Read(name, context_.pool).view, *context_.pool);
  }

  // `rows` of one format.
  PackedWeight PackPart(std::span<const LoadedRows> rows) {
    std::vector<MatrixView> plain;
    std::vector<QuantMatrixView> quantized;
    for (const LoadedRows& row : rows) {
      plain.push_back(row.plain.view);
      if (row.quantized.has_value()) quantized.push_back(row.quantized->view);
    }
    if (quantized.empty()) return PackWeight(plain, PackHere());
    return PackWeight(quantized, PackHere());
  }

  PackTarget PackHere() { return {.dtype = dtype_, .pool = *context_.pool, .arena = arena_}; }

  bool on_cpu() const { return context_.device == DeviceKind::kCpu; }

  at::Tensor HostFloats(const std::string& name) const {
    const LoadedMatrix matrix = checkpoint_.Read(name, context_.pool);
    return AsTensor(matrix.view).flatten().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  }

  // A vector: too small to be worth staging.
  at::Tensor ToDevice(const at::Tensor& floats) const { return floats.to(ToTorchDevice(device_)); }

  const Checkpoint& checkpoint_;
  const DType dtype_;
  const Quantization quantization_;
  const Device device_;
  const KernelContext& context_;
  std::optional<WeightUpload> upload_;  // Not on CPU.
  WeightArena arena_;                   // On CPU.
  std::set<std::string, std::less<>> formats_;
  int64_t linear_bytes_ = 0;
};

// `tensors` of one layer, one destination and one expert go there, in the table's order.
void Place(std::span<const TensorSpec> tensors, WeightLoader& loader, TransformerWeights& weights) {
  const TensorSpec& first = tensors.front();
  LayerWeights* layer =
      first.layer < 0 ? nullptr : &weights.layers[static_cast<size_t>(first.layer)];
  switch (first.destination) {
    case Destination::kEmbedding:
      weights.embedding = loader.Matrix(first.name);
      break;
    case Destination::kAttentionNorm:
      layer->attention_norm = loader.Vector(first.name);
      break;
    case Destination::kQueryNorm:
      layer->query_norm = loader.Vector(first.name);
      break;
    case Destination::kKeyNorm:
      layer->key_norm = loader.Vector(first.name);
      break;
    case Destination::kQkv:
      layer->qkv = loader.Linear(tensors);
      break;
    case Destination::kAttentionOutput:
      layer->attention_output = loader.Linear(tensors);
      break;
    case Destination::kMlpNorm:
      layer->mlp_norm = loader.Vector(first.name);
      break;
    case Destination::kGateUp:
      layer->gate_up = loader.Linear(tensors);
      break;
    case Destination::kMlpDown:
      layer->mlp_down = loader.Linear(tensors);
      break;
    case Destination::kRouter:
      layer->mixture.emplace().router = loader.Router(tensors);
      break;
    case Destination::kExpertGateUp:
      layer->mixture->experts.emplace_back().gate_up = loader.Linear(tensors);
      break;
    case Destination::kExpertDown:
      layer->mixture->experts.back().down = loader.Linear(tensors);
      break;
    case Destination::kSharedGateUp:
      layer->mixture->shared.emplace().gate_up = loader.Linear(tensors);
      break;
    case Destination::kSharedDown:
      layer->mixture->shared->down = loader.Linear(tensors);
      break;
    case Destination::kFinalNorm:
      weights.final_norm = loader.Vector(first.name);
      break;
    case Destination::kOutput:
      weights.output = loader.Linear(tensors);
      break;
  }
}

}  // namespace

TransformerWeights LoadWeights(const Checkpoint& checkpoint, const TransformerOptions& options,
                               const KernelContext& context,
                               const std::function<void(double)>& progress) {
  const ModelConfig& config = checkpoint.config();
  const std::vector<TensorSpec> tensors = ExpectedTensors(config);
  WeightLoader loader(checkpoint, options, context);
  TransformerWeights weights;
  weights.layers.resize(static_cast<size_t>(config.layers));
  WeightsDigest digest(*context.pool);
  for (size_t begin = 0, end; begin < tensors.size(); begin = end) {
    const TensorSpec& first = tensors[begin];
    end = begin + 1;
    while (end < tensors.size() && tensors[end].layer == first.layer &&
           tensors[end].destination == first.destination && tensors[end].expert == first.expert) {
      ++end;
    }
    const std::span<const TensorSpec> together(tensors.data() + begin, end - begin);
    Place(together, loader, weights);
    for (const TensorSpec& tensor : together) {  // Right after their bytes were read.
      for (const std::string_view bytes : checkpoint.StoredBytes(tensor.name)) {
        digest.Add(tensor.name, bytes);
      }
    }
    if (progress) progress(static_cast<double>(end) / static_cast<double>(tensors.size()));
  }
  if (const std::vector<float>& divisors = config.rope.frequency_divisors; !divisors.empty()) {
    digest.Add("rope_freqs.weight",
               {reinterpret_cast<const char*>(divisors.data()), divisors.size() * sizeof(float)});
  }
  if (config.tied_embeddings) {
    weights.output = loader.TiedOutput(tensors.front().name, weights.embedding);
  }
  weights.format = loader.Format();
  weights.linear_bytes = loader.linear_bytes();
  weights.digest = digest.Hex();
  return weights;
}

}  // namespace structattn
