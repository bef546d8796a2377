// A file mapped read-only, and the reading of small files into memory, with limits. Opens regular
// files only, so that a pipe or a device under a model's name cannot block or misread; never
// writes.
#ifndef STRUCTATTN_SERVER_MODEL_MAPPED_FILE_H_
#define STRUCTATTN_SERVER_MODEL_MAPPED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace structattn {

// The mapping lives as long as the object. Move-only.
class MappedFile {
 public:
  // Errors name the path: NOT_FOUND, or FAILED_PRECONDITION for what is not a readable file.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  // All bytes of the file, as it was long when it was opened.
  std::string_view bytes() const { return {data_, size_}; }
  size_t size() const { return size_; }

 private:
  MappedFile(const char* data, size_t size) : data_(data), size_(size) {}

  const char* data_ = nullptr;
  size_t size_ = 0;
};

// The whole file as a string; refuses, by its size, a file of more than `limit_bytes`.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t limit_bytes);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_MAPPED_FILE_H_
