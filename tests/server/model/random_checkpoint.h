// A checkpoint of random weights for any config, without a file: for tests of the decoder.
#ifndef STRUCTATTN_TESTS_SERVER_MODEL_RANDOM_CHECKPOINT_H_
#define STRUCTATTN_TESTS_SERVER_MODEL_RANDOM_CHECKPOINT_H_

#include <cmath>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/dtype.h"
#include "server/model/checkpoint.h"
#include "server/model/tensor_table.h"

namespace structattn {

// Random float tensors, the same for the same name; each value is one of `values`, so that loading
// them in that dtype changes nothing.
class RandomCheckpoint : public Checkpoint {
 public:
  explicit RandomCheckpoint(const ModelConfig& config, DType values = DType::kFloat32)
      : config_(config), values_(values) {
    for (const TensorSpec& spec : ExpectedTensors(config_)) specs_.emplace(spec.name, spec);
  }

  const ModelConfig& config() const override { return config_; }
  std::unique_ptr<Tokenizer> TakeTokenizer() override { return nullptr; }
  std::string kind() const override { return "random"; }
  std::vector<std::string_view> StoredBytes(std::string_view) const override { return {}; }
  const std::string& digest() const override { return digest_; }
  int64_t parameters() const override { return 0; }

 protected:
  LoadedMatrix ReadTensor(std::string_view name, ThreadPool*) const override {
    const TensorSpec& spec = specs_.at(std::string(name));
    const size_t count = static_cast<size_t>(spec.rows * spec.columns);
    LoadedMatrix matrix;
    matrix.owned = std::make_unique<std::byte[]>(count * sizeof(float));
    std::mt19937_64 random(std::hash<std::string>()(spec.name));
    const float scale = spec.rows == 1 ? 0.3f : 2.0f / std::sqrt(static_cast<float>(spec.columns));
    std::normal_distribution<float> normal(spec.rows == 1 ? 1.0f : 0.0f, scale);
    float* values = reinterpret_cast<float*>(matrix.owned.get());
    for (size_t i = 0; i < count; ++i) values[i] = Rounded(normal(random));
    matrix.view = {.data = values, .rows = spec.rows, .columns = spec.columns};
    return matrix;
  }

 private:
  float Rounded(float value) const {
    if (values_ == DType::kBfloat16) return ToFloat(FromFloat<Bfloat16>(value));
    if (values_ == DType::kFloat16) return ToFloat(FromFloat<Float16>(value));
    return value;
  }

  const ModelConfig config_;
  const DType values_;
  const std::string digest_;
  std::map<std::string, TensorSpec> specs_;
};

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_SERVER_MODEL_RANDOM_CHECKPOINT_H_
