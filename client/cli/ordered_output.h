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

class OrderedOutput {
 public:
  struct Options {
    std::string path;
    bool resume;
    const std::vector<std::string>& inputs;  // Prompt lines; outlive this object.
  };

  // Resuming keeps an earlier line when it is a success at the same place with the same id. The
  // earlier file stays beside the new one (PATH.previous) until all is done, so that a run may be
  // killed and resumed any number of times. Throws CLI::FileError.
  explicit OrderedOutput(const Options& options);

  bool IsDone(size_t index) const;             // Kept from an earlier run.
  void Put(size_t index, const Json& result);  // Thread-safe; once per index.
  // Ends the file; drops the earlier one when every prompt has its line.
  void Close();
  size_t failed() const { return failed_; }

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  void LoadPrevious(const std::string& path);
  void Flush();
  void ShowProgress() const;

  const std::string path_;
  const std::vector<std::string>& inputs_;
  std::vector<bool> done_;  // By earlier runs; constant after construction.
  mutable std::mutex mutex_;
  // All below: guarded by mutex_.
  std::vector<std::optional<std::string>> lines_;
  std::unique_ptr<std::FILE, CloseFile> file_;
  size_t next_ = 0;
  size_t finished_ = 0;
  size_t failed_ = 0;
};

}  // namespace structattn::client

#endif  // STRUCTATTN_CLIENT_CLI_ORDERED_OUTPUT_H_
