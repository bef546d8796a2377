// The output file of commands that work on JSONL: results arrive in any order and are written in
// input order, each as soon as all before it are there, so that a killed run leaves whole lines to
// resume from. It asks no server.
#ifndef STRUCTATTN_CLIENT_CLI_ORDERED_OUTPUT_H_
#define STRUCTATTN_CLIENT_CLI_ORDERED_OUTPUT_H_

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/prompt_json.h"

namespace structattn::client {

// The id of a prompt's line, null when it has none or is no JSON object.
Json IdOf(const std::string& line);

// Whether a result line is an error or an answer that the server had to cut off.
bool IsFailure(const Json& result);

class OrderedOutput {
 public:
  struct Options {
    std::string path;
    bool resume;
    const std::vector<std::string>& inputs;  // The prompts' lines; they must outlive this object.
  };

  // Resuming keeps an earlier line when it is a success at the same place with the same id. All
  // kept lines stay beside the new file (PATH.previous) until every prompt has its line, so that a
  // run may be killed and resumed any number of times. Throws CLI::FileError.
  explicit OrderedOutput(const Options& options);

  // Whether the line was kept from an earlier run.
  bool IsDone(size_t index) const;
  // Thread-safe. Every index may be put once.
  void Put(size_t index, const Json& result);
  // Ends the file. Results behind a gap are kept: the gap gets lines with an error, which the next
  // --resume answers. Throws CLI::FileError when the file could not be written to its end.
  void Close();
  size_t failed() const {
    const absl::MutexLock lock(&mutex_);
    return failed_;
  }

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  using File = std::unique_ptr<std::FILE, CloseFile>;

  static File OpenForWriting(const std::string& path);
  static void CloseOrThrow(File file, const std::string& path);
  void LoadPrevious(const std::string& path) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SavePrevious() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string Missing(size_t index) const;  // The line of a prompt that has no result.
  void Flush() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ShowProgress() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  const std::vector<std::string>& inputs_;
  std::vector<bool> done_;  // Kept from earlier runs; constant after construction.
  mutable absl::Mutex mutex_;
  std::vector<std::optional<std::string>> lines_ ABSL_GUARDED_BY(mutex_);
  File file_ ABSL_GUARDED_BY(mutex_);
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t finished_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t failed_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace structattn::client

#endif  // STRUCTATTN_CLIENT_CLI_ORDERED_OUTPUT_H_
