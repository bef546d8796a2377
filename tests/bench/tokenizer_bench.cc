// Encodes a text over and over on one core: tokenizer_bench TOKENIZER.json TEXT [seconds].
// Checks first that decoding gives the text back, then prints MB/s (10^6 bytes) and tokens/s.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "server/model/tokenizer/tokenizer.h"

namespace {

std::string ReadFile(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: tokenizer_bench TOKENIZER.json TEXT [seconds]\n");
    return 2;
  }
  const std::string json = ReadFile(argv[1]);
  const std::string text = ReadFile(argv[2]);
  const double limit_s = argc > 3 ? std::atof(argv[3]) : 3.0;
  const auto load_start = std::chrono::steady_clock::now();
  const auto tokenizer = structattn::Tokenizer::FromJson(json);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", std::string(tokenizer.status().message()).c_str());
    return 1;
  }
  const double load_s = SecondsSince(load_start);

  const structattn::TextSegment segment{.text = text};
  std::vector<int32_t> ids;
  for (const structattn::Token& token : (*tokenizer)->Encode({&segment, 1})) {
    ids.push_back(token.id);
  }
  if ((*tokenizer)->Decode(ids) != text) {
    std::fprintf(stderr, "decoding does not give the text back\n");
    return 1;
  }
  double best_s = 1e9;
  int rounds = 0;
  for (const auto start = std::chrono::steady_clock::now(); SecondsSince(start) < limit_s;) {
    const auto round_start = std::chrono::steady_clock::now();
    const size_t tokens = (*tokenizer)->Encode({&segment, 1}).size();
    best_s = std::min(best_s, SecondsSince(round_start));
    ++rounds;
    if (tokens != ids.size()) return 1;
  }
  std::printf(
      "load %.0f ms; %zu bytes, %zu tokens: %.1f MB/s, %.2f million tokens/s (best of %d)\n",
      load_s * 1e3, text.size(), ids.size(), static_cast<double>(text.size()) / best_s / 1e6,
      static_cast<double>(ids.size()) / best_s / 1e6, rounds);
  return 0;
}
