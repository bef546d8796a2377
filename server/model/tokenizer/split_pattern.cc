// The regular expressions that are implemented, and the search for runs. Keeps no state between
// texts.
#include "server/model/tokenizer/split_pattern.h"

#include "server/model/tokenizer/utf8.h"
#include "server/model/tokenizer/word_scanner.h"

namespace structattn {
namespace {

struct KnownPattern {
  std::string_view regex;
  WordPattern words;
};
constexpr KnownPattern kKnownPatterns[] = {
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
     WordPattern::kGpt2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
     R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     WordPattern::kLlama3},
    // The same in the words of tiktoken: what is possessive or left out there changes no match.
    {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3})"
     R"(| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)",
     WordPattern::kLlama3},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
     R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     WordPattern::kQwen2},
};

constexpr int kLlama3MaxDigits = 3;
constexpr int kQwen2MaxDigits = 1;

constexpr size_t kMostCounted = 1000;  // Of {1,n}: more is not meant to be counted.

// The number of {1,n} at the front of `regex`, which is taken away; 0 if there is none.
size_t TakeCount(std::string_view* regex) {
  if (!regex->starts_with("{1,")) return 0;
  size_t count = 0;
  size_t i = 3;
  while (i < regex->size() && (*regex)[i] >= '0' && (*regex)[i] <= '9' && count < kMostCounted) {
    count = count * 10 + static_cast<size_t>((*regex)[i++] - '0');
  }
  if (count == 0 || count > kMostCounted || i >= regex->size() || (*regex)[i] != '}') return 0;
  regex->remove_prefix(i + 1);
  return count;
}

// `\s?` or ` ?` in front of a run.
std::optional<CharSet> TakePrefix(std::string_view* regex) {
  if (regex->starts_with("\\s?") && regex->size() > 3) {
    regex->remove_prefix(3);
    return CharSet::OfClasses(kSpace);
  }
  if (regex->starts_with(" ?") && regex->size() > 2) {
    regex->remove_prefix(2);
    std::string_view space = "[ ]";
    return CharSet::Parse(&space);
  }
  return std::nullopt;
}

std::optional<RunPattern> ParseRun(std::string_view regex) {
  RunPattern run;
  run.prefix = TakePrefix(&regex);
  std::optional<CharSet> set = CharSet::Parse(&regex);
  if (!set.has_value()) return std::nullopt;
  run.set = *std::move(set);
  if (regex.starts_with('+')) {
    regex.remove_prefix(1);
  } else if (const size_t count = TakeCount(&regex)) {
    run.most = count;
  } else {
    run.most = 1;
  }
  run.at_line_end = regex == "$" && run.most == RunPattern::kNoLimit && !run.prefix.has_value();
  if (!run.at_line_end && !regex.empty()) return std::nullopt;
  return run;
}

// The end of the run of at most run.most characters that begins at `begin`.
size_t RunEnd(const RunPattern& run, std::string_view text, size_t begin) {
  size_t end = begin;
  for (size_t count = 0; count < run.most && end < text.size(); ++count) {
    const Utf8Char c = CharAt(text, end);
    if (!run.set.Has(c.code_point)) break;
    end += c.size;
  }
  return end;
}

// Of a run that must end a line, the part up to the last line feed in it that is not its first
// character; `begin` if there is none.
size_t LineEnd(std::string_view text, TextSpan run) {
  if (run.end == text.size()) return run.end;
  const size_t line_feed = text.substr(run.begin, run.end - run.begin).rfind('\n');
  return line_feed == std::string_view::npos ? run.begin : run.begin + line_feed;
}

std::optional<TextSpan> FindRun(const RunPattern& run, std::string_view text, size_t from) {
  while (from < text.size()) {
    const Utf8Char first = CharAt(text, from);
    if (run.prefix.has_value() && run.prefix->Has(first.code_point)) {
      const size_t begin = from + first.size;
      if (const size_t end = RunEnd(run, text, begin); end > begin) return TextSpan{from, end};
    }
    if (!run.set.Has(first.code_point)) {
      from += first.size;
      continue;
    }
    size_t end = RunEnd(run, text, from);
    if (run.at_line_end) {
      const size_t run_end = end;
      end = LineEnd(text, {from, run_end});
      if (end == from) {
        from = run_end;
        continue;
      }
    }
    return TextSpan{from, end};
  }
  return std::nullopt;
}

}  // namespace

std::optional<SplitPattern> SplitPattern::FromRegex(std::string_view regex) {
  for (const KnownPattern& known : kKnownPatterns) {
    if (regex == known.regex) return Words(known.words);
  }
  std::optional<RunPattern> run = ParseRun(regex);
  if (!run.has_value()) return std::nullopt;
  return SplitPattern(*std::move(run));
}

SplitPattern SplitPattern::Digits(bool individual) {
  RunPattern run;
  run.set = CharSet::OfClasses(kNumeric);
  if (individual) run.most = 1;
  return SplitPattern(std::move(run));
}

std::optional<TextSpan> SplitPattern::Find(std::string_view text, size_t from) const {
  if (from >= text.size()) return std::nullopt;
  if (const WordPattern* known = words()) return TextSpan{from, WordEnd(*known, text, from)};
  if (const auto* run = std::get_if<RunPattern>(&pattern_)) return FindRun(*run, text, from);
  const auto& literal = std::get<std::string>(pattern_);
  const size_t found = text.find(literal, from);
  if (found == std::string_view::npos) return std::nullopt;
  return TextSpan{found, found + literal.size()};
}

size_t WordEnd(WordPattern words, std::string_view text, size_t begin) {
  const WordScanner scanner(text);
  switch (words) {
    case WordPattern::kGpt2:
      return scanner.Gpt2WordEnd(begin);
    case WordPattern::kLlama3:
      return scanner.Llama3WordEnd(begin, kLlama3MaxDigits);
    case WordPattern::kQwen2:
      break;
  }
  return scanner.Llama3WordEnd(begin, kQwen2MaxDigits);
}

}  // namespace structattn
