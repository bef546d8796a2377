// A model's files, opened and checked: a Hugging Face directory or a GGUF file behind one face.
// Every size is checked before a byte of tensor data is touched; errors name file, tensor and
// reason. Runs no code from a file, follows no path out of the directory.
#ifndef STRUCTATTN_SERVER_MODEL_CHECKPOINT_H_
#define STRUCTATTN_SERVER_MODEL_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/linear/linear.h"
#include "kernels/thread_pool.h"
#include "server/model/model_config.h"
#include "server/model/tokenizer/tokenizer.h"

namespace structattn {

// A matrix ready to be packed. `view` points into the mapped file when no conversion was needed,
// else into `owned`. Vectors have rows = 1.
struct LoadedMatrix {
  MatrixView view;
  std::unique_ptr<std::byte[]> owned;
};

class Checkpoint {
 public:
  // `path` is a directory with config.json, tokenizer.json and *.safetensors, or a .gguf file.
  // On success every tensor that the config asks for exists with the right shape (also the
  // tokenizer fits the vocabulary).
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& path);

  virtual ~Checkpoint() = default;

  virtual const ModelConfig& config() const = 0;
  virtual std::unique_ptr<Tokenizer> TakeTokenizer() = 0;  // Once.

  // The tensor by its Hugging Face name ("model.layers.0.self_attn.q_proj.weight",
  // "model.embed_tokens.weight", "lm_head.weight"), as [rows, columns] in its plain stored dtype
  // (quantised tensors: dequantised to float32; GGUF's q/k row permutation undone).
  // Asking for a tensor that ExpectedTensors does not list is a broken invariant (lm_head.weight of
  // tied embeddings among them). With a pool, a conversion is shared out to its threads.
  LoadedMatrix Read(std::string_view name, ThreadPool* pool = nullptr) const {
    return ReadTensor(name, pool);
  }

  // The same tensor in quant blocks of the same values, where it is stored in quant blocks or other
  // integers that such hold; absent where not.
  virtual std::optional<QuantMatrix> ReadQuantized(std::string_view /*name*/,
                                                   ThreadPool& /*pool*/) const {
    return std::nullopt;
  }

  // How a quantised folder stores the tensor ("gptq_4bit_g128"); empty for all other tensors.
  virtual std::string QuantizationOf(std::string_view /*name*/) const { return ""; }

  // The format of ReadQuantized, known without reading.
  virtual std::optional<QuantFormat> StoredFormat(std::string_view /*name*/) const {
    return std::nullopt;
  }

  // What the files are, for people: "GGUF file".
  virtual std::string kind() const = 0;

  // The bytes of the files that Read makes the tensor of, in one part or several.
  virtual std::vector<std::string_view> StoredBytes(std::string_view name) const = 0;

  // SHA-256 (hex) over config, tokenizer, tensor headers and file sizes.
  virtual const std::string& digest() const = 0;
  virtual int64_t parameters() const = 0;  // Elements over all expected tensors.

 private:
  virtual LoadedMatrix ReadTensor(std::string_view name, ThreadPool* pool) const = 0;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_CHECKPOINT_H_
