// The file or files of a GGUF model: a large one is split into NAME-00001-of-0000N.gguf and so on,
// with the metadata in the first. Interprets no key but those of the split.
#ifndef STRUCTATTN_SERVER_MODEL_GGUF_FILES_H_
#define STRUCTATTN_SERVER_MODEL_GGUF_FILES_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/gguf.h"
#include "server/model/mapped_file.h"

namespace structattn {

struct GgufFiles {
  std::vector<MappedFile> files;
  Gguf gguf;           // Points into the files: the first one's metadata, the tensors of all.
  std::string digest;  // SHA-256 (hex) over headers and sizes.
};

// `path` is the file, or the first one of a split model. Messages begin with the file that they are
// about.
absl::StatusOr<GgufFiles> OpenGgufFiles(const std::string& path);

// The place of a file in a split model, by its name.
struct GgufPart {
  std::string_view stem;  // The path up to "-00001-of-00002.gguf".
  int64_t number;         // From 1.
  int64_t count;

  std::string PathOf(int64_t other) const;  // Of another part.
};

// Nothing for a name of another form.
std::optional<GgufPart> ParseGgufPart(std::string_view path);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_GGUF_FILES_H_
