// See ordered_output.h.
#include "client/cli/ordered_output.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>

#include "client/result_json.h"

namespace structattn::client {
namespace {

constexpr char kPreviousSuffix[] = ".previous";
constexpr int kBarWidth = 30;

Json ParseOrNull(const std::string& line) {
  return Json::parse(line, nullptr, /*allow_exceptions=*/false);
}

}  // namespace

Json IdOf(const std::string& line) {
  const Json json = ParseOrNull(line);
  return json.is_object() && json.contains("id") ? json["id"] : Json();
}

OrderedOutput::OrderedOutput(const Options& options)
    : path_(options.path),
      inputs_(options.inputs),
      done_(options.inputs.size(), false),
      lines_(options.inputs.size()) {
  const std::string previous = path_ + kPreviousSuffix;
  std::error_code ignored;
  if (options.resume) {
    LoadPrevious(previous);
    LoadPrevious(path_);
    if (std::filesystem::exists(path_, ignored)) std::filesystem::rename(path_, previous, ignored);
  } else {
    std::filesystem::remove(previous, ignored);
  }
  file_.reset(std::fopen(path_.c_str(), "wb"));
  if (file_ == nullptr) throw CLI::FileError(path_ + ": cannot be written");
  Flush();
}

void OrderedOutput::LoadPrevious(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string line;
  for (size_t i = 0; i < inputs_.size() && std::getline(file, line); ++i) {
    const Json result = ParseOrNull(line);
    const bool success = result.is_object() && result.contains("id") && !result.contains("error");
    if (!success || result["id"] != IdOf(inputs_[i])) continue;
    if (!done_[i]) ++finished_;
    done_[i] = true;
    lines_[i] = line;
  }
}

bool OrderedOutput::IsDone(size_t index) const { return done_[index]; }

void OrderedOutput::Put(size_t index, const Json& result) {
  std::string line = Line(result);
  const std::lock_guard lock(mutex_);
  lines_[index] = std::move(line);
  ++finished_;
  if (result.contains("error")) ++failed_;
  Flush();
  ShowProgress();
}

void OrderedOutput::Flush() {
  for (; next_ < lines_.size() && lines_[next_]; ++next_) {
    std::fwrite(lines_[next_]->data(), 1, lines_[next_]->size(), file_.get());
    std::fputc('\n', file_.get());
    lines_[next_] = std::string();  // Written: let go of the memory, stay marked as there.
  }
  std::fflush(file_.get());
}

void OrderedOutput::ShowProgress() const {
  if (!isatty(STDERR_FILENO)) return;
  const int filled = static_cast<int>(finished_ * kBarWidth / lines_.size());
  std::fprintf(stderr, "\r[%s%s] %zu/%zu", std::string(filled, '#').c_str(),
               std::string(kBarWidth - filled, ' ').c_str(), finished_, lines_.size());
  if (failed_ > 0) std::fprintf(stderr, ", %zu failed", failed_);
  if (finished_ == lines_.size()) std::fputc('\n', stderr);
}

void OrderedOutput::Close() {
  const std::lock_guard lock(mutex_);
  Flush();
  const bool complete = next_ == lines_.size();
  file_.reset();
  std::error_code ignored;
  if (complete) std::filesystem::remove(path_ + kPreviousSuffix, ignored);
}

}  // namespace structattn::client
