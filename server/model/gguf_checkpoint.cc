// Opens a GGUF file, checks its tensors against its metadata and hands them out under their Hugging
// Face names, in Hugging Face's row order: see gguf_checkpoint.h and checkpoint.h.
#include "server/model/gguf_checkpoint.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "kernels/check.h"
#include "server/model/ends_of_generation.h"
#include "server/model/folder_tokenizer.h"
#include "server/model/gguf.h"
#include "server/model/gguf_config.h"
#include "server/model/gguf_files.h"
#include "server/model/plain_tensor.h"
#include "server/model/refusal.h"
#include "server/model/status_macros.h"
#include "server/model/tensor_table.h"

namespace structattn {
namespace {

// Work of one item of a parallel conversion.
constexpr int64_t kElementsPerItem = int64_t{1} << 16;

// A tensor and the rows in which it is stored: a bias that was permuted with its matrix counts as
// one row per element.
struct LocatedTensor {
  TensorSpec spec;
  const GgufTensor* stored;
  bool permuted;  // Rows of each head are interleaved: see StoredRow.
};

// The architecture `llama` stores q and k for a rotary embedding of neighbouring pairs: within a
// head, row 2 i + j of the file is row j * head_dim / 2 + i of Hugging Face's halves.
int64_t StoredRow(int64_t row, int64_t head_dim) {
  const int64_t in_head = row % head_dim;
  const int64_t half = head_dim / 2;
  return row - in_head + 2 * (in_head % half) + in_head / half;
}

class GgufCheckpoint final : public Checkpoint {
 public:
  GgufCheckpoint(GgufFiles opened, ModelConfig config)
      : files_(std::move(opened.files)),
        gguf_(std::move(opened.gguf)),
        config_(std::move(config)),
        digest_(std::move(opened.digest)) {}

  absl::Status Locate();
  absl::Status ReadRopeDivisors();
  absl::Status AddTokenizer();

  const ModelConfig& config() const override { return config_; }
  std::unique_ptr<Tokenizer> TakeTokenizer() override { return std::move(tokenizer_); }
  std::optional<QuantMatrix> ReadQuantized(std::string_view name, ThreadPool& pool) const override;
  std::optional<QuantFormat> StoredFormat(std::string_view name) const override {
    return Located(name).stored->encoding->quant_format;
  }
  std::string kind() const override {
    return files_.size() == 1 ? "GGUF file" : Concat("GGUF model of ", files_.size(), " files");
  }
  std::vector<std::string_view> StoredBytes(std::string_view name) const override {
    return {Bytes(Located(name))};
  }
  const std::string& digest() const override { return digest_; }
  int64_t parameters() const override { return parameters_; }

 private:
  LoadedMatrix ReadTensor(std::string_view name, ThreadPool* pool) const override;
  const LocatedTensor& Located(std::string_view name) const;
  // An expert's matrix is a slice of its stack.
  static std::string_view Bytes(const LocatedTensor& tensor) {
    const std::string_view bytes = tensor.stored->bytes;
    if (tensor.spec.expert < 0) return bytes;
    return BytesInStack(tensor.spec, {.rows = tensor.spec.rows}, bytes);
  }

  const std::vector<MappedFile> files_;
  const Gguf gguf_;  // Points into files_.
  ModelConfig config_;
  std::map<std::string, LocatedTensor, std::less<>> located_;
  std::unique_ptr<Tokenizer> tokenizer_;
  const std::string digest_;
  int64_t parameters_ = 0;
};

absl::Status GgufCheckpoint::Locate() {
  for (TensorSpec& spec : ExpectedTensors(config_)) {
    const std::string place = Concat("'", spec.gguf_name, "'");
    const GgufTensor* stored = gguf_.FindTensor(spec.gguf_name);
    if (stored == nullptr) return Refuse(place, ": tensor is missing");
    const std::vector<int64_t> shape(stored->dimensions.rbegin(), stored->dimensions.rend());
    const absl::Status fits =
        spec.expert < 0 ? CheckShape(spec, shape) : CheckStackShape(spec, spec.rows, shape);
    if (!fits.ok()) return WithPrefix(place, fits);
    if (spec.rows == 1 && !stored->encoding->plain) {
      return Refuse(place, ": encoding ", stored->encoding->name,
                    ": supported for vectors are F32, F16, BF16");
    }
    parameters_ += spec.rows * spec.columns;
    std::string name = spec.name;
    const bool permuted = spec.is_rotary && config_.architecture == "llama";
    located_.emplace(std::move(name), LocatedTensor{std::move(spec), stored, permuted});
  }
  return absl::OkStatus();
}

absl::Status GgufCheckpoint::ReadRopeDivisors() {
  const GgufTensor* stored = gguf_.FindTensor("rope_freqs.weight");
  if (stored == nullptr) return absl::OkStatus();
  const TensorSpec spec{.name = "rope_freqs.weight",
                        .gguf_name = "rope_freqs.weight",
                        .columns = config_.head_dim / 2};
  if (absl::Status status = CheckShape(spec, stored->dimensions); !status.ok()) {
    return WithPrefix("'rope_freqs.weight'", status);
  }
  if (stored->encoding->plain != DType::kFloat32) {
    return Refuse("'rope_freqs.weight': encoding ", stored->encoding->name, ": supported is F32");
  }
  config_.rope.frequency_divisors.resize(static_cast<size_t>(spec.columns));
  const std::string_view bytes = stored->bytes;
  std::memcpy(config_.rope.frequency_divisors.data(), bytes.data(), bytes.size());
  if (absl::Status status = ValidateModelConfig(config_); !status.ok()) {
    return WithPrefix("'rope_freqs.weight'", status);
  }
  return absl::OkStatus();
}

absl::Status GgufCheckpoint::AddTokenizer() {
  STRUCTATTN_ASSIGN_OR_RETURN(const GgufVocabulary vocabulary, ReadGgufVocabulary(gguf_));
  STRUCTATTN_ASSIGN_OR_RETURN(tokenizer_, Tokenizer::FromGguf(vocabulary));
  if (absl::Status status = CheckEmbedded(*tokenizer_, config_.vocab_size); !status.ok()) {
    return WithPrefix("tokenizer.ggml.tokens", status);
  }
  return AddEnds(gguf_, vocabulary, config_);
}

const LocatedTensor& GgufCheckpoint::Located(std::string_view name) const {
  const auto found = located_.find(name);
  STRUCTATTN_CHECK(found != located_.end());
  return found->second;
}

LoadedMatrix GgufCheckpoint::ReadTensor(std::string_view name, ThreadPool* pool) const {
  const auto& [spec, stored, permuted] = Located(name);
  const GgmlEncoding& encoding = *stored->encoding;
  const std::string_view bytes = Bytes(Located(name));
  if (encoding.plain && !permuted) return ViewOrCopy(bytes, *encoding.plain, spec);

  // A permuted bias is a column of single elements.
  const bool column = permuted && spec.rows == 1;
  const int64_t rows = column ? spec.columns : spec.rows;
  const int64_t columns = column ? 1 : spec.columns;
  const DType dtype = encoding.plain.value_or(DType::kFloat32);
  const int64_t source_bytes = columns / encoding.quant_block_values * encoding.quant_block_bytes;
  const int64_t target_bytes = columns * static_cast<int64_t>(ByteSize(dtype));
  LoadedMatrix matrix;
  matrix.owned = std::make_unique_for_overwrite<std::byte[]>(rows * target_bytes);
  matrix.view = {matrix.owned.get(), dtype, spec.rows, spec.columns};

  const int64_t rows_per_item = std::max<int64_t>(1, kElementsPerItem / columns);
  const int64_t items = (rows + rows_per_item - 1) / rows_per_item;
  const auto convert = [&, permuted = permuted](int64_t item) {
    const int64_t end = std::min(rows, (item + 1) * rows_per_item);
    for (int64_t row = item * rows_per_item; row < end; ++row) {
      const int64_t source_row = permuted ? StoredRow(row, config_.head_dim) : row;
      const std::string_view source = bytes.substr(source_row * source_bytes, source_bytes);
      std::byte* target = matrix.owned.get() + row * target_bytes;
      if (encoding.plain) {
        std::memcpy(target, source.data(), source.size());
      } else {
        Dequantize(*encoding.quant_format, source.data(), columns / encoding.quant_block_values,
                   reinterpret_cast<float*>(target));
      }
    }
  };
  if (pool != nullptr) {
    pool->ParallelFor(items, convert);
  } else {
    for (int64_t item = 0; item < items; ++item) convert(item);
  }
  return matrix;
}

std::optional<QuantMatrix> GgufCheckpoint::ReadQuantized(std::string_view name, ThreadPool&) const {
  const auto& [spec, stored, permuted] = Located(name);
  if (!stored->encoding->quant_format.has_value()) return std::nullopt;
  const std::string_view bytes = Bytes(Located(name));
  QuantMatrix quantized;
  quantized.view = {bytes.data(), *stored->encoding->quant_format, spec.rows, spec.columns};
  if (permuted) {
    const auto row_bytes = static_cast<size_t>(quantized.view.row_bytes());
    quantized.owned = std::make_unique_for_overwrite<std::byte[]>(bytes.size());
    for (int64_t row = 0; row < spec.rows; ++row) {
      const int64_t from = StoredRow(row, config_.head_dim);
      std::memcpy(quantized.owned.get() + row * row_bytes, bytes.data() + from * row_bytes,
                  row_bytes);
    }
    quantized.view.data = quantized.owned.get();
  }
  return quantized;
}

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenFiles(GgufFiles files) {
  STRUCTATTN_ASSIGN_OR_RETURN(ModelConfig config, ReadGgufConfig(files.gguf));
  auto checkpoint = std::make_unique<GgufCheckpoint>(std::move(files), std::move(config));
  STRUCTATTN_RETURN_IF_ERROR(checkpoint->Locate());
  STRUCTATTN_RETURN_IF_ERROR(checkpoint->ReadRopeDivisors());
  STRUCTATTN_RETURN_IF_ERROR(checkpoint->AddTokenizer());
  return checkpoint;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenGgufCheckpoint(const std::string& path) {
  STRUCTATTN_ASSIGN_OR_RETURN(GgufFiles files, OpenGgufFiles(path));
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = OpenFiles(std::move(files));
  if (!checkpoint.ok()) return WithPrefix(path, checkpoint.status());
  return checkpoint;
}

}  // namespace structattn
