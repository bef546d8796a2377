// Opens config.json, generation_config.json, tokenizer.json and one or many safetensors files, and
// checks them against each other: see hf_checkpoint.h and checkpoint.h.
#include "server/model/hf_checkpoint.h"

#include <algorithm>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "server/model/folder_tokenizer.h"
#include "server/model/mapped_file.h"
#include "server/model/plain_tensor.h"
#include "server/model/quantized_matrix.h"
#include "server/model/refusal.h"
#include "server/model/safetensors_folder.h"
#include "server/model/sha256.h"
#include "server/model/status_macros.h"
#include "server/model/tensor_table.h"

namespace structattn {
namespace {

constexpr size_t kLargestConfigBytes = size_t{1} << 20;
constexpr std::string_view kEmbedding = "model.embed_tokens.weight";
constexpr std::string_view kOutput = "lm_head.weight";

// The text files of a directory.
struct Texts {
  std::string config;
  std::string generation_config;  // Empty: there is none.
  TokenizerFiles tokenizer;
};

struct LocatedTensor {
  TensorSpec spec;
  SafetensorsFolder::Found stored;           // Of plain numbers.
  std::optional<QuantizedMatrix> quantized;  // Instead.
  bool in_stack = false;                     // With all experts' matrices: TensorSpec::stack.
};

class HfCheckpoint final : public Checkpoint {
 public:
  HfCheckpoint(ModelConfig config, SafetensorsFolder folder)
      : config_(std::move(config)), folder_(std::move(folder)) {}

  // As transformers does it: a stored output layer is used, whatever tie_word_embeddings says; of
  // tied embeddings either tensor may be the stored one.
  void SettleTies();
  // Finds every expected tensor and fills in the dtype where the config names none.
  absl::Status Locate();
  absl::Status AddTokenizer(const TokenizerFiles& files);
  void MakeDigest(const Texts& texts);

  const ModelConfig& config() const override { return config_; }
  std::unique_ptr<Tokenizer> TakeTokenizer() override { return std::move(tokenizer_); }
  std::optional<QuantMatrix> ReadQuantized(std::string_view name, ThreadPool& pool) const override;
  std::string QuantizationOf(std::string_view name) const override;
  std::optional<QuantFormat> StoredFormat(std::string_view name) const override;
  std::string kind() const override {
    const size_t files = folder_.shards().size();
    return Concat("Hugging Face folder with ", files, files == 1 ? " file" : " files",
                  " of weights");
  }
  std::vector<std::string_view> StoredBytes(std::string_view name) const override;
  const std::string& digest() const override { return digest_; }
  int64_t parameters() const override { return parameters_; }

 private:
  LoadedMatrix ReadTensor(std::string_view name, ThreadPool* pool) const override;
  const LocatedTensor& Located(std::string_view name) const;
  std::vector<std::string> StoredNames(const std::string& name) const;
  absl::StatusOr<std::optional<SafetensorsFolder::Found>> FindIfStored(
      const std::string& name) const;
  absl::StatusOr<LocatedTensor> LocatePlain(const TensorSpec& spec) const;
  absl::StatusOr<LocatedTensor> LocateTensor(const TensorSpec& spec) const;
  bool IsStored(std::string_view name) const;

  ModelConfig config_;
  SafetensorsFolder folder_;
  std::map<std::string, LocatedTensor, std::less<>> located_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::string digest_;
  int64_t parameters_ = 0;
};

bool HfCheckpoint::IsStored(std::string_view name) const {
  const std::vector<std::string> names = StoredNames(std::string(name));
  return std::any_of(names.begin(), names.end(),
                     [this](const std::string& stored) { return folder_.Has(stored); });
}

void HfCheckpoint::SettleTies() {
  const bool has_quantized_output = config_.quantization.has_value() &&
                                    IsStored(NameOfCodes(config_.quantization->form, kOutput));
  if (IsStored(kEmbedding) && (IsStored(kOutput) || has_quantized_output)) {
    config_.tied_embeddings = false;
  }
}

// The names under which a tensor may be stored, best first: a base model was saved without the
// prefix.
std::vector<std::string> HfCheckpoint::StoredNames(const std::string& name) const {
  constexpr std::string_view kPrefix = "model.";
  std::vector<std::string> names = {name};
  if (name.starts_with(kPrefix)) names.push_back(name.substr(kPrefix.size()));
  return names;
}

absl::StatusOr<std::optional<SafetensorsFolder::Found>> HfCheckpoint::FindIfStored(
    const std::string& name) const {
  if (!IsStored(name)) return std::optional<SafetensorsFolder::Found>();
  STRUCTATTN_ASSIGN_OR_RETURN(const SafetensorsFolder::Found found,
                              folder_.Find(StoredNames(name)));
  return std::optional(found);
}

absl::StatusOr<LocatedTensor> HfCheckpoint::LocatePlain(const TensorSpec& spec) const {
  const bool in_stack = spec.expert >= 0 && !IsStored(spec.name) && IsStored(spec.stack.name);
  std::vector<std::string> names = StoredNames(in_stack ? spec.stack.name : spec.name);
  if (config_.tied_embeddings && spec.name == kEmbedding) names.emplace_back(kOutput);
  STRUCTATTN_ASSIGN_OR_RETURN(const SafetensorsFolder::Found found, folder_.Find(names));
  const StoredTensor& stored = *found.tensor;
  if (!PlainDType(stored.dtype)) {
    return Refuse(found.place(), ": dtype ", stored.dtype, ": supported are F32, F16, BF16");
  }
  const absl::Status fits = in_stack ? CheckStackShape(spec, spec.stack.rows, stored.shape)
                                     : CheckShape(spec, stored.shape);
  if (!fits.ok()) return WithPrefix(found.place(), fits);
  return LocatedTensor{.spec = spec, .stored = found, .quantized = {}, .in_stack = in_stack};
}

absl::StatusOr<LocatedTensor> HfCheckpoint::LocateTensor(const TensorSpec& spec) const {
  const bool is_matrix = !spec.is_bias && spec.rows > 1 && spec.name != kEmbedding;
  if (!config_.quantization.has_value() || !is_matrix) return LocatePlain(spec);
  STRUCTATTN_ASSIGN_OR_RETURN(
      std::optional<QuantizedMatrix> quantized,
      LocateQuantizedMatrix(*config_.quantization, spec,
                            [this](const std::string& name) { return FindIfStored(name); }));
  if (!quantized.has_value()) return LocatePlain(spec);
  return LocatedTensor{.spec = spec, .stored = {}, .quantized = std::move(quantized)};
}

absl::Status HfCheckpoint::Locate() {
  for (const TensorSpec& spec : ExpectedTensors(config_)) {
    STRUCTATTN_ASSIGN_OR_RETURN(LocatedTensor located, LocateTensor(spec));
    if (!located.quantized && !std::exchange(config_.dtype_named, true)) {
      config_.dtype = *PlainDType(located.stored.tensor->dtype);
    }
    parameters_ += spec.rows * spec.columns;
    located_.emplace(spec.name, std::move(located));
  }
  return absl::OkStatus();
}

absl::Status HfCheckpoint::AddTokenizer(const TokenizerFiles& files) {
  STRUCTATTN_ASSIGN_OR_RETURN(tokenizer_, Tokenizer::FromFolder(files));
  const absl::Status status = CheckEmbedded(*tokenizer_, config_.vocab_size);
  return status.ok() ? status : WithPrefix("tokenizer.json", status);
}

void HfCheckpoint::MakeDigest(const Texts& texts) {
  Sha256 hash;
  const auto add = [&hash](std::string_view label, std::string_view contents, size_t file_bytes) {
    hash.Update(Concat(label, " ", contents.size(), " ", file_bytes, "\n"));
    hash.Update(contents);
  };
  add("config", texts.config, texts.config.size());
  add("generation_config", texts.generation_config, texts.generation_config.size());
  HashTokenizerFiles(texts.tokenizer, &hash);
  for (const auto& shard : folder_.shards()) {
    add("safetensors", shard->file.header(), shard->file.file_bytes());
  }
  digest_ = hash.Hex();
}

const LocatedTensor& HfCheckpoint::Located(std::string_view name) const {
  const auto found = located_.find(name);
  STRUCTATTN_CHECK(found != located_.end());
  return found->second;
}

// The bytes of a matrix of plain numbers: an expert's may be a slice of a stack.
std::string_view PlainBytes(const LocatedTensor& located) {
  const std::string_view bytes = located.stored.bytes();
  return located.in_stack ? BytesInStack(located.spec, located.spec.stack, bytes) : bytes;
}

LoadedMatrix HfCheckpoint::ReadTensor(std::string_view name, ThreadPool* pool) const {
  const LocatedTensor& located = Located(name);
  if (located.quantized.has_value()) return Expand(*located.quantized, pool);
  return ViewOrCopy(PlainBytes(located), *PlainDType(located.stored.tensor->dtype), located.spec);
}

std::optional<QuantMatrix> HfCheckpoint::ReadQuantized(std::string_view name,
                                                       ThreadPool& pool) const {
  const std::optional<QuantizedMatrix>& quantized = Located(name).quantized;
  return quantized.has_value() ? Hold(*quantized, pool) : std::nullopt;
}

std::string HfCheckpoint::QuantizationOf(std::string_view name) const {
  const std::optional<QuantizedMatrix>& quantized = Located(name).quantized;
  return quantized.has_value() ? quantized->quantization.name : std::string();
}

std::optional<QuantFormat> HfCheckpoint::StoredFormat(std::string_view name) const {
  const std::optional<QuantizedMatrix>& quantized = Located(name).quantized;
  return quantized.has_value() ? HeldFormat(*quantized) : std::nullopt;
}

std::vector<std::string_view> HfCheckpoint::StoredBytes(std::string_view name) const {
  const LocatedTensor& located = Located(name);
  if (!located.quantized.has_value()) return {PlainBytes(located)};
  std::vector<std::string_view> parts = {located.quantized->codes.bytes(),
                                         located.quantized->scales.bytes()};
  for (const auto* part : {&located.quantized->zeros, &located.quantized->input_map}) {
    if (part->has_value()) parts.push_back((*part)->bytes());
  }
  return parts;
}

// All but the tokenizer: what the configs refuse is said before what follows from it.
absl::StatusOr<Texts> ReadConfigs(const std::string& directory) {
  Texts texts;
  STRUCTATTN_ASSIGN_OR_RETURN(texts.config,
                              ReadSmallFile(directory + "/config.json", kLargestConfigBytes));
  absl::StatusOr<std::string> generation =
      ReadSmallFile(directory + "/generation_config.json", kLargestConfigBytes);
  if (!generation.ok() && !absl::IsNotFound(generation.status())) return generation.status();
  if (generation.ok()) texts.generation_config = *std::move(generation);
  return texts;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenHfCheckpoint(const std::string& directory) {
  STRUCTATTN_ASSIGN_OR_RETURN(Texts texts, ReadConfigs(directory));
  absl::StatusOr<ModelConfig> config = ParseModelConfig(texts.config, texts.generation_config);
  // The message begins with the file's name already.
  if (!config.ok()) {
    return absl::Status(config.status().code(), Concat(directory, "/", config.status().message()));
  }
  STRUCTATTN_ASSIGN_OR_RETURN(SafetensorsFolder folder, SafetensorsFolder::Open(directory));
  auto checkpoint = std::make_unique<HfCheckpoint>(*std::move(config), std::move(folder));
  checkpoint->SettleTies();
  STRUCTATTN_RETURN_IF_ERROR(checkpoint->Locate());
  STRUCTATTN_ASSIGN_OR_RETURN(texts.tokenizer, ReadTokenizerFiles(directory));
  if (absl::Status status = checkpoint->AddTokenizer(texts.tokenizer); !status.ok()) {
    return absl::Status(status.code(), Concat(directory, "/", std::string(status.message())));
  }
  checkpoint->MakeDigest(texts);
  return checkpoint;
}

}  // namespace structattn
