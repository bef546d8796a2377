// The output file of `batch`: results arrive in any order and are written in input order, each as
// soon as all before it are there, so that a killed run leaves whole lines to resume from.
#ifndef STRUCTATTN_CLIENT_CLI_ORDERED_OUTPUT_H_
#define STRUCTATTN_CLIENT_CLI_ORDERED_OUTPUT_H_

#include <cstdio>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

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
    const std::vector<std::string>& inputs;  // Prompt lines; outlive this object.
  };

  // Resuming keeps an earlier line when it is a success at the same place with the same id. All
  // kept lines stay beside the new file (PATH.previous) until every prompt has its line, so that a
  // run may be killed and resumed any number of times. Throws CLI::FileError.
  explicit OrderedOutput(const Options& options);

  bool IsDone(size_t index) const;             // Kept from an earlier run.
  void Put(size_t index, const Json& result);  // Thread-safe; once per index.
  // Ends the file. Results behind a gap are kept: the gap gets lines with an error, which the next
  // --resume answers. Throws CLI::FileError when the file could not be written to its end.
  void Close();
  size_t failed() const { return failed_; }

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  using File = std::unique_ptr<std::FILE, CloseFile>;

  static File OpenForWriting(const std::string& path);
  static void CloseOrThrow(File file, const std::string& path);
  void LoadPrevious(const std::string& path);
  void SavePrevious() const;
  std::string Missing(size_t index) const;  // The line of a prompt that has no result.
  void Flush();
  void ShowProgress() const;

  const std::string path_;
  const std::vector<std::string>& inputs_;
  std::vector<bool> done_;  // By earlier runs; constant after construction.
  mutable std::mutex mutex_;
  // All below: guarded by mutex_.
  std::vector<std::optional<std::string>> lines_;
  File file_;
  size_t next_ = 0;
  size_t finished_ = 0;
  size_t failed_ = 0;
};

}  // namespace structattn::client

#endif  // STRUCTATTN_CLIENT_CLI_ORDERED_OUTPUT_H_
