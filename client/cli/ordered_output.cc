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

bool IsFailure(const Json& result) {
  return result.contains("error") ||
         (result.contains("finish_reason") && result["finish_reason"] == "cancelled");
}

Json IdOf(const std::string& line) {
  const Json json = ParseOrNull(line);
  return json.is_object() && json.contains("id") ? json["id"] : Json();
}

OrderedOutput::OrderedOutput(const Options& options)
    : path_(options.path),
      inputs_(options.inputs),
      done_(options.inputs.size(), false),
      lines_(options.inputs.size()) {
  const absl::MutexLock lock(&mutex_);
  if (options.resume) {
    LoadPrevious(path_ + kPreviousSuffix);
    LoadPrevious(path_);
    if (finished_ > 0) SavePrevious();
  } else {
    std::error_code ignored;
    std::filesystem::remove(path_ + kPreviousSuffix, ignored);
  }
  file_ = OpenForWriting(path_);
  Flush();
}

OrderedOutput::File OrderedOutput::OpenForWriting(const std::string& path) {
  File file(std::fopen(path.c_str(), "wb"));
  if (file == nullptr) throw CLI::FileError(path + ": cannot be written");
  return file;
}

void OrderedOutput::CloseOrThrow(File file, const std::string& path) {
  const bool failed = std::ferror(file.get()) != 0;
  if (std::fclose(file.release()) != 0 || failed) {
    throw CLI::FileError(path + ": cannot be written to its end");
  }
}

void OrderedOutput::SavePrevious() const {
  const std::string previous = path_ + kPreviousSuffix;
  const std::string unfinished = previous + ".tmp";
  File file = OpenForWriting(unfinished);
  for (size_t i = 0; i < lines_.size(); ++i) {
    std::fprintf(file.get(), "%s\n", lines_[i] ? lines_[i]->c_str() : Missing(i).c_str());
  }
  CloseOrThrow(std::move(file), unfinished);
  std::error_code error;
  std::filesystem::rename(unfinished, previous, error);
  if (error) throw CLI::FileError(previous + ": cannot be written");
}

std::string OrderedOutput::Missing(size_t index) const {
  const ErrorText error{.code = CodeName(grpc::StatusCode::CANCELLED),
                        .message = "the run ended before this prompt was answered",
                        .field = ""};
  return Line(ErrorJson(IdOf(inputs_[index]), error));
}

void OrderedOutput::LoadPrevious(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string line;
  for (size_t i = 0; i < inputs_.size() && std::getline(file, line); ++i) {
    const Json result = ParseOrNull(line);
    const bool success = result.is_object() && result.contains("id") && !IsFailure(result);
    if (!success || result["id"] != IdOf(inputs_[i])) continue;
    if (!done_[i]) ++finished_;
    done_[i] = true;
    lines_[i] = line;
  }
}

bool OrderedOutput::IsDone(size_t index) const { return done_[index]; }

void OrderedOutput::Put(size_t index, const Json& result) {
  std::string line = Line(result);
  const absl::MutexLock lock(&mutex_);
  lines_[index] = std::move(line);
  ++finished_;
  if (IsFailure(result)) ++failed_;
  Flush();
  ShowProgress();
}

void OrderedOutput::Flush() {
  for (; next_ < lines_.size() && lines_[next_]; ++next_) {
    std::fwrite(lines_[next_]->data(), 1, lines_[next_]->size(), file_.get());
    std::fputc('\n', file_.get());
    lines_[next_] = std::string();  // Frees the memory; the line still counts as there.
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
  const absl::MutexLock lock(&mutex_);
  Flush();
  const bool complete = next_ == lines_.size();
  size_t end = lines_.size();
  while (end > next_ && !lines_[end - 1]) --end;
  for (size_t i = next_; i < end; ++i) {
    if (!lines_[i]) lines_[i] = Missing(i);
  }
  Flush();
  CloseOrThrow(std::move(file_), path_);
  std::error_code ignored;
  if (complete) std::filesystem::remove(path_ + kPreviousSuffix, ignored);
}

}  // namespace structattn::client
