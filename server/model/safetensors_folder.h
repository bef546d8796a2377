// The safetensors files of a Hugging Face directory: model.safetensors, or those that its index
// names. Finds tensors by the names under which they may be stored; knows nothing of models.
#ifndef STRUCTATTN_SERVER_MODEL_SAFETENSORS_FOLDER_H_
#define STRUCTATTN_SERVER_MODEL_SAFETENSORS_FOLDER_H_

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/safetensors.h"

namespace structattn {

class SafetensorsFolder {
 public:
  struct Shard {
    std::string path;
    SafetensorsFile file;
  };
  struct Found {
    const Shard* shard = nullptr;
    const StoredTensor* tensor = nullptr;
    std::string_view name;  // Under which it is stored.

    std::string_view bytes() const { return shard->file.Bytes(*tensor); }
    std::string place() const;  // "PATH: 'NAME'", for messages.
  };

  static absl::StatusOr<SafetensorsFolder> Open(const std::string& directory);

  const std::vector<std::unique_ptr<Shard>>& shards() const { return shards_; }
  bool Has(std::string_view name) const;

  // The tensor that is stored under the first of `names` that is there. An error, which names the
  // first one, when none is, or when two files have it.
  absl::StatusOr<Found> Find(std::span<const std::string> names) const;

 private:
  explicit SafetensorsFolder(std::vector<std::unique_ptr<Shard>> shards)
      : shards_(std::move(shards)) {}

  std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_SAFETENSORS_FOLDER_H_
