// A file mapped read-only, and the reading of small files: see mapped_file.h. Keeps no descriptor
// open.
#include "server/model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "server/model/refusal.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

absl::Status Refusal(const std::string& path, int error) {
  const std::string message = Concat(path, ": ", std::generic_category().message(error));
  return error == ENOENT ? absl::NotFoundError(message) : absl::FailedPreconditionError(message);
}

// The first line of a Git LFS pointer, the small text in place of a file that was not fetched.
constexpr std::string_view kLfsPointer = "version https://git-lfs.github.com/spec/v1\n";
constexpr size_t kLargestLfsPointerBytes = 1024;

bool IsLfsPointer(int descriptor, size_t size) {
  if (size < kLfsPointer.size() || size > kLargestLfsPointerBytes) return false;
  std::string start(kLfsPointer.size(), '\0');
  const ssize_t count = ::pread(descriptor, start.data(), start.size(), 0);
  return count == static_cast<ssize_t>(start.size()) && start == kLfsPointer;
}

bool IsLink(const std::string& path) {
  struct stat info;
  return ::lstat(path.c_str(), &info) == 0 && S_ISLNK(info.st_mode);
}

// A descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  int value() const { return value_; }

 private:
  int value_;
};

struct OpenedFile {
  Descriptor descriptor;
  size_t size;
};

absl::StatusOr<OpenedFile> OpenRegular(const std::string& path) {
  if (path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("a path must not hold a NUL character");
  }
  // O_NONBLOCK: opening a pipe must not wait for its writer.
  Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (descriptor.value() < 0) {
    const int error = errno;
    if (error == ENOENT && IsLink(path)) {
      return Refuse(path, ": a link to a file that is not there (an unfinished download?)");
    }
    return Refusal(path, error);
  }
  struct stat info;
  if (::fstat(descriptor.value(), &info) != 0) return Refusal(path, errno);
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(Concat(path, ": not a regular file"));
  }
  const auto size = static_cast<size_t>(info.st_size);
  if (IsLfsPointer(descriptor.value(), size)) {
    return Refuse(path, ": a Git LFS pointer of ", size,
                  " bytes in place of the file: fetch it with 'git lfs pull'");
  }
  return OpenedFile{std::move(descriptor), size};
}

}  // namespace

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  STRUCTATTN_ASSIGN_OR_RETURN(const OpenedFile file, OpenRegular(path));
  if (file.size == 0) return absl::FailedPreconditionError(Concat(path, ": empty file"));
  void* data = ::mmap(nullptr, file.size, PROT_READ, MAP_PRIVATE, file.descriptor.value(), 0);
  if (data == MAP_FAILED) return Refusal(path, errno);
  return MappedFile(static_cast<const char*>(data), file.size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<char*>(data_), size_);
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t limit_bytes) {
  STRUCTATTN_ASSIGN_OR_RETURN(const OpenedFile file, OpenRegular(path));
  if (file.size > limit_bytes) {
    return absl::FailedPreconditionError(
        Concat(path, ": ", file.size, " bytes, at most ", limit_bytes, " are allowed"));
  }
  std::string contents(file.size, '\0');
  size_t done = 0;
  while (done < contents.size()) {
    const ssize_t count =
        ::read(file.descriptor.value(), contents.data() + done, contents.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Refusal(path, errno);
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  contents.resize(done);
  return contents;
}

}  // namespace structattn
