// What a byte of hostile text costs to tokenize, beside a byte of English:
//   tokenizer_cost PROSE TOKENIZER.json...
// PROSE is a text file, or a .jsonl whose strings are the prose; it is repeated to 1 MiB. Prose
// that is repeated often stays in the cache, which makes English cheap and the bar of 4 x English
// hard. Checks first that the tokens do not depend on how the text is cut into segments (a second
// pass with other borders), then times Encode alone on the thread's processor time. Never run by
// ctest.
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "server/model/tokenizer/tokenizer.h"
#include "server/model/tokenizer/utf8.h"

namespace structattn {
namespace {

constexpr size_t kTextBytes = 1 << 20;
constexpr size_t kSegments = 999;
constexpr int kRounds = 3;

struct Case {
  std::string name;
  std::string text;
  bool parse_special = false;
};

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Whole copies of `unit` up to about `bytes`.
std::string Repeat(std::string_view unit, size_t bytes = kTextBytes) {
  std::string text;
  text.reserve(bytes + unit.size());
  while (text.size() < bytes) text += unit;
  return text;
}

// Characters of the ranges [first, last], each as likely as the others.
std::string RandomText(const std::vector<std::pair<char32_t, char32_t>>& ranges) {
  std::vector<char32_t> characters;
  for (const auto& [first, last] : ranges) {
    for (char32_t c = first; c <= last; ++c) characters.push_back(c);
  }
  std::mt19937 random(17);
  std::string text;
  while (text.size() < kTextBytes) AppendUtf8(characters[random() % characters.size()], &text);
  return text;
}

void CollectStrings(const nlohmann::json& value, std::string* text) {
  if (value.is_string() && value.get_ref<const std::string&>().size() > 40) {
    *text += value.get_ref<const std::string&>() + "\n";
  }
  if (!value.is_structured()) return;
  for (const nlohmann::json& part : value) CollectStrings(part, text);
}

std::string ReadProse(const std::string& path) {
  if (!path.ends_with(".jsonl")) return Repeat(ReadFile(path));
  std::ifstream file(path);
  std::string text;
  for (std::string line; std::getline(file, line);) {
    CollectStrings(nlohmann::json::parse(line), &text);
  }
  return Repeat(text);
}

std::string WithoutSpaces(std::string text) {
  std::erase_if(text, [](char c) { return c == ' ' || c == '\n'; });
  return Repeat(text);
}

std::vector<Case> Cases(const std::string& prose) {
  return {
      {"english", prose},
      {"english, no spaces", WithoutSpaces(prose)},
      {"random a-z", RandomText({{'a', 'z'}})},
      {"random a-zA-Z", RandomText({{'a', 'z'}, {'A', 'Z'}})},
      {"random a-z and space", RandomText({{'a', 'z'}, {' ', ' '}})},
      {"random ASCII", RandomText({{' ', '~'}})},
      {"a", Repeat("a")},
      {"ab", Repeat("ab")},
      {"abc", Repeat("abc")},
      {"space", Repeat(" ")},
      {"tab", Repeat("\t")},
      {"newline", Repeat("\n")},
      {"newline space newline", Repeat("\n \n")},
      {"space newline", Repeat(" \n")},
      {"random white space", RandomText({{' ', ' '}, {'\t', '\n'}, {'\r', '\r'}})},
      {"word", Repeat("internationalization")},
      {"word and space", Repeat("internationalization ")},
      {"space and a", Repeat(" a")},
      {"e and acute", Repeat("e\u0301")},
      {"acute", "a" + Repeat("\u0301")},
      {"marks of two classes", "a" + Repeat("\u0301\u0323")},
      {"random marks", RandomText({{0x300, 0x36f}})},
      {"hangul jamo", Repeat("\u1100\u1161\u11a8")},
      {"zero-width joiner", Repeat("\u200d")},
      {"emoji family", Repeat("\U0001F468\u200d\U0001F469\u200d\U0001F467")},
      {"random emoji", RandomText({{0x1F300, 0x1F5FF}})},
      {"digits", RandomText({{'0', '9'}})},
      {"digit", Repeat("7")},
      {"random punctuation", RandomText({{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}})},
      {"=", Repeat("=")},
      {"apostrophe s", Repeat("'s")},
      {"random CJK", RandomText({{0x4e00, 0x9fff}})},
      {"CJK", Repeat("\u7684\u4e00")},
      {"random Hangul", RandomText({{0xac00, 0xd7a3}})},
      {"random Cyrillic", RandomText({{0x430, 0x44f}})},
      {"random Thai", RandomText({{0xe01, 0xe3a}})},
      {"Egyptian", RandomText({{0x13000, 0x1342e}})},
      {"random characters", RandomText({{0x20, 0xd7ff}, {0xe000, 0x10ffff}})},
      {"controls", RandomText({{1, 31}})},
      {"<", Repeat("<")},
      {"<|im_start|", Repeat("<|im_start|")},
      {"<|im_end|> plain", Repeat("<|im_end|>")},
      {"<|im_end|> special", Repeat("<|im_end|>"), true},
      {"<0x41>", Repeat("<0x41>")},
      {"meta symbol", Repeat("\u2581")},
  };
}

double ProcessorSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

std::vector<int32_t> Ids(const Tokenizer& tokenizer, const std::vector<TextSegment>& segments) {
  std::vector<int32_t> ids;
  for (const Token& token : tokenizer.Encode(segments)) ids.push_back(token.id);
  return ids;
}

// The text in many segments, cut between characters.
std::vector<TextSegment> CutIntoSegments(const Case& c) {
  std::vector<TextSegment> segments;
  const std::string_view text = c.text;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(begin + text.size() / kSegments, text.size());
    while (end < text.size() && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) ++end;
    segments.push_back({text.substr(begin, end - begin), c.parse_special});
    begin = end;
  }
  return segments;
}

// ns a byte, or a negative number if the check fails.
double Cost(const Tokenizer& tokenizer, const Case& c) {
  const std::vector<TextSegment> whole = {{c.text, c.parse_special}};
  if (Ids(tokenizer, whole) != Ids(tokenizer, CutIntoSegments(c))) return -1;
  double best_s = 1e9;
  for (int round = 0; round < kRounds; ++round) {
    const double start = ProcessorSeconds();
    const std::vector<Token> tokens = tokenizer.Encode(whole);
    best_s = std::min(best_s, ProcessorSeconds() - start);
  }
  return best_s * 1e9 / static_cast<double>(c.text.size());
}

int Run(int argc, char** argv) {
  const std::string prose = ReadProse(argv[1]);
  double worst = 0;
  for (int i = 2; i < argc; ++i) {
    const auto tokenizer = Tokenizer::FromJson(ReadFile(argv[i]));
    if (!tokenizer.ok()) {
      std::fprintf(stderr, "%s: %s\n", argv[i], tokenizer.status().ToString().c_str());
      return 1;
    }
    std::printf("%s\n", argv[i]);
    double english = 0;
    for (const Case& c : Cases(prose)) {
      const double cost = Cost(**tokenizer, c);
      if (cost < 0) {
        std::fprintf(stderr, "%s: other tokens with other segments\n", c.name.c_str());
        return 1;
      }
      if (english == 0) english = cost;
      worst = std::max(worst, cost / english);
      std::printf("  %-22s %7.1f ns/byte %6.2f x English%s\n", c.name.c_str(), cost, cost / english,
                  cost > 4 * english ? "  <--" : "");
      std::fflush(stdout);
    }
  }
  std::printf("worst: %.2f x English\n", worst);
  return 0;
}

}  // namespace
}  // namespace structattn

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: tokenizer_cost PROSE TOKENIZER.json...\n");
    return 2;
  }
  return structattn::Run(argc, argv);
}
