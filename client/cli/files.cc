// See files.h.
#include "client/cli/files.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string_view>

namespace structattn::client {
namespace {

constexpr size_t kExcerptBytes = 60;

// N of a field "segments[N]...", or -1.
int SegmentIndex(const std::string& field) {
  constexpr std::string_view kPrefix = "segments[";
  if (field.compare(0, kPrefix.size(), kPrefix) != 0) return -1;
  int index = -1;
  const char* begin = field.data() + kPrefix.size();
  const std::from_chars_result result = std::from_chars(begin, field.data() + field.size(), index);
  return result.ec == std::errc() ? index : -1;
}

// The first bytes of a text on one line, cut between characters.
std::string Excerpt(const std::string& text) {
  size_t length = std::min(text.size(), kExcerptBytes);
  while (length < text.size() && length > 0 && (text[length] & 0xC0) == 0x80) --length;
  std::string excerpt = text.substr(0, length);
  for (char& c : excerpt) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return length < text.size() ? excerpt + "..." : excerpt;
}

}  // namespace

std::string ReadFile(const std::string& path) {
  if (path == "-") {
    return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  }
  std::error_code ignored;
  std::ifstream file(path, std::ios::binary);
  std::stringstream contents;
  if (file) contents << file.rdbuf();
  if (!file || std::filesystem::is_directory(path, ignored)) {
    throw CLI::FileError(path + ": cannot be read");
  }
  return contents.str();
}

std::vector<std::string> ReadLines(const std::string& path) {
  std::istringstream contents(ReadFile(path));
  std::vector<std::string> lines;
  std::string line;
  while (std::getline(contents, line)) {
    if (line.find_first_not_of(" \t\r") != std::string::npos) lines.push_back(line);
  }
  return lines;
}

void ReportError(const ErrorText& error, const v1::Prompt& prompt) {
  std::fprintf(stderr, "error: %s: %s\n", error.code.c_str(), error.message.c_str());
  const int index = SegmentIndex(error.field);
  if (index < 0 || index >= prompt.segments_size()) return;
  const v1::Segment& segment = prompt.segments(index);
  const std::string content = segment.has_token_ids()
                                  ? std::to_string(segment.token_ids().ids_size()) + " token ids"
                                  : "\"" + Excerpt(segment.text()) + "\"";
  std::fprintf(stderr, "  segments[%d] is a %s: %s\n", index,
               SegmentTypeWord(segment.type()).c_str(), content.c_str());
}

}  // namespace structattn::client
