// Tokenizes and decodes what it reads on stdin, for tests/server/model/tokenizer/oracle.py.
// A test tool: never installed, and trusts the requests that it is given.
//
//   tokenizer_tool PATH        PATH is a tokenizer.json, a .gguf or a model's folder
//
// Numbers are 32-bit little-endian. Requests:
//   'E' segments {parse_special bytes text}...  ->  tokens {id segment}...
//   'D' count {id}...                           ->  bytes text
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/model/folder_tokenizer.h"
#include "server/model/gguf.h"
#include "server/model/gguf_config.h"
#include "server/model/mapped_file.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/tokenizer.h"
#include "server/model/tokenizer/utf8.h"

namespace structattn {
namespace {

[[noreturn]] void Fail(const std::string& message) {
  std::fprintf(stderr, "tokenizer_tool: %s\n", message.c_str());
  std::exit(1);
}

int32_t ReadInt() {
  int32_t value = 0;
  if (std::fread(&value, sizeof(value), 1, stdin) != 1) Fail("the request ends early");
  return value;
}

void WriteInt(int32_t value) { std::fwrite(&value, sizeof(value), 1, stdout); }

std::string ReadText() {
  std::string text(static_cast<size_t>(ReadInt()), '\0');
  if (std::fread(text.data(), 1, text.size(), stdin) != text.size()) Fail("a text ends early");
  return text;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadGguf(const std::string& path) {
  STRUCTATTN_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  STRUCTATTN_ASSIGN_OR_RETURN(const Gguf gguf, Gguf::Parse(file.bytes()));
  STRUCTATTN_ASSIGN_OR_RETURN(const GgufVocabulary vocabulary, ReadGgufVocabulary(gguf));
  return Tokenizer::FromGguf(vocabulary);
}

std::unique_ptr<Tokenizer> Load(const std::string& path) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = absl::InternalError("not loaded");
  if (std::filesystem::is_directory(path)) {
    const absl::StatusOr<TokenizerFiles> files = ReadTokenizerFiles(path);
    if (!files.ok()) Fail(std::string(files.status().message()));
    tokenizer = Tokenizer::FromFolder(*files);
  } else if (path.ends_with(".gguf")) {
    tokenizer = LoadGguf(path);
  } else {
    std::ifstream file(path, std::ios::binary);
    const std::string json{std::istreambuf_iterator<char>(file), {}};
    tokenizer = Tokenizer::FromJson(json);
  }
  if (!tokenizer.ok()) Fail(path + ": " + std::string(tokenizer.status().message()));
  return *std::move(tokenizer);
}

void Encode(const Tokenizer& tokenizer) {
  std::vector<std::string> texts(static_cast<size_t>(ReadInt()));
  std::vector<TextSegment> segments;
  for (std::string& text : texts) {
    const bool parse_special = ReadInt() != 0;
    text = ReadText();
    segments.push_back({text, parse_special});
  }
  const std::vector<Token> tokens = tokenizer.Encode(segments);
  WriteInt(static_cast<int32_t>(tokens.size()));
  for (const Token& token : tokens) {
    WriteInt(token.id);
    WriteInt(token.segment);
  }
}

void Decode(const Tokenizer& tokenizer) {
  const int32_t count = ReadInt();
  const auto decoder = tokenizer.NewStreamDecoder();
  std::string text;
  const auto append = [&text](const std::string& piece) {
    if (!IsValidUtf8(piece)) Fail("a piece of a stream is not whole characters");
    text += piece;
  };
  for (int32_t i = 0; i < count; ++i) append(decoder->Push(ReadInt()));
  append(decoder->Finish());
  WriteInt(static_cast<int32_t>(text.size()));
  std::fwrite(text.data(), 1, text.size(), stdout);
}

void Serve(const Tokenizer& tokenizer) {
  for (int request = std::getchar(); request != EOF; request = std::getchar()) {
    if (request == 'E') {
      Encode(tokenizer);
    } else if (request == 'D') {
      Decode(tokenizer);
    } else {
      Fail("unknown request");
    }
  }
}

}  // namespace
}  // namespace structattn

int main(int argc, char** argv) {
  if (argc != 2) structattn::Fail("usage: tokenizer_tool PATH");
  structattn::Serve(*structattn::Load(argv[1]));
  return 0;
}
