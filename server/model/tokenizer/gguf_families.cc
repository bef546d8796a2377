// The families of byte-level BPE, by the names that llama.cpp's converter writes. Reads no file.
#include "server/model/tokenizer/gguf_families.h"

#include <algorithm>
#include <array>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace structattn {
namespace {

enum class Splits { kGpt2, kDigitsGpt2, kLlama3, kQwen2, kDeepseekLlm, kDeepseekCoder };

// How a family's tokenizer.json differs from the plainest one.
enum Trait : unsigned { kNone = 0, kNfc = 1, kIgnoreMerges = 2, kAddsBos = 4 };

constexpr std::array<std::string_view, 12> kQwenPlain = {
    "<tool_call>",    "</tool_call>", "<tool_response>", "</tool_response>",
    "<think>",        "</think>",     "<|fim_prefix|>",  "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>",  "<|repo_name|>",   "<|file_sep|>"};
constexpr std::array<std::string_view, 15> kDeepseekQwenPlain = {"<tool_call>",
                                                                 "</tool_call>",
                                                                 "<tool_response>",
                                                                 "</tool_response>",
                                                                 "<think>",
                                                                 "</think>",
                                                                 "<|fim_prefix|>",
                                                                 "<|fim_middle|>",
                                                                 "<|fim_suffix|>",
                                                                 "<|fim_pad|>",
                                                                 "<|repo_name|>",
                                                                 "<|file_sep|>",
                                                                 "<\uFF5CUser\uFF5C>",
                                                                 "<\uFF5CAssistant\uFF5C>",
                                                                 "<|EOT|>"};
constexpr std::array<std::string_view, 6> kDeepseekCoderPlain = {"<\uFF5Cfim\u2581hole\uFF5C>",
                                                                 "<\uFF5Cfim\u2581begin\uFF5C>",
                                                                 "<\uFF5Cfim\u2581end\uFF5C>",
                                                                 "<|User|>",
                                                                 "<|Assistant|>",
                                                                 "<|EOT|>"};

struct Family {
  std::string_view name;
  Splits splits;
  unsigned traits = kNone;
  std::span<const std::string_view> plain_tokens = {};
};

constexpr Family kFamilies[] = {
    {"a.x-4.0", Splits::kGpt2},
    {"chatglm-bpe", Splits::kLlama3},
    {"codeshell", Splits::kDigitsGpt2},
    {"command-r", Splits::kDigitsGpt2, kNfc | kAddsBos},
    {"dbrx", Splits::kLlama3},
    {"deepseek-coder", Splits::kDeepseekCoder, kNone, kDeepseekCoderPlain},
    {"deepseek-llm", Splits::kDeepseekLlm},
    {"deepseek-r1-qwen", Splits::kQwen2, kNfc | kAddsBos, kDeepseekQwenPlain},
    {"exaone", Splits::kDigitsGpt2},
    {"exaone4", Splits::kGpt2},
    {"f2llmv2", Splits::kQwen2, kNfc, kQwenPlain},
    {"falcon-h1", Splits::kLlama3, kIgnoreMerges},
    {"falcon3", Splits::kLlama3, kIgnoreMerges},
    {"gigachat", Splits::kGpt2},
    {"glm4", Splits::kLlama3},
    {"gpt-2", Splits::kGpt2},
    {"granite-docling", Splits::kGpt2},
    {"grok-2", Splits::kQwen2},
    {"hunyuan", Splits::kQwen2},
    {"jais", Splits::kGpt2},
    {"jina-de", Splits::kGpt2},
    {"jina-es", Splits::kGpt2},
    {"jina-v2-de", Splits::kGpt2},
    {"jina-v2-es", Splits::kGpt2},
    {"jina-v5-nano", Splits::kLlama3, kIgnoreMerges | kAddsBos},
    {"kormo", Splits::kQwen2},
    {"lfm2", Splits::kLlama3, kIgnoreMerges | kAddsBos},
    {"llama-bpe", Splits::kLlama3, kIgnoreMerges | kAddsBos},
    {"llama-v3", Splits::kLlama3, kIgnoreMerges | kAddsBos},
    {"llama3", Splits::kLlama3, kIgnoreMerges | kAddsBos},
    {"megrez", Splits::kQwen2},
    {"mellum", Splits::kGpt2},
    {"mellum2", Splits::kDigitsGpt2},
    {"midm-2.0", Splits::kLlama3, kIgnoreMerges | kAddsBos},
    {"minerva-7b", Splits::kDigitsGpt2},
    {"modern-bert", Splits::kGpt2, kNfc},
    {"mpt", Splits::kGpt2, kNfc},
    {"olmo", Splits::kGpt2, kNfc},
    {"phi-2", Splits::kGpt2},
    {"pixtral", Splits::kLlama3, kIgnoreMerges | kAddsBos},
    {"qwen2", Splits::kQwen2, kNfc, kQwenPlain},
    {"refact", Splits::kDigitsGpt2},
    {"smaug-bpe", Splits::kLlama3, kAddsBos},
    {"smollm", Splits::kDigitsGpt2},
    {"solar-open", Splits::kQwen2},
    {"stablelm2", Splits::kQwen2},
    {"starcoder", Splits::kDigitsGpt2},
    {"trillion", Splits::kGpt2},
};

// The cased letters of Unicode 12, as deepseek-llm names them.
constexpr std::string_view kCasedWords =
    "\\s?["
    "A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293"
    "\u0295-\u02AF\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C"
    "\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5"
    "\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77"
    "\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59"
    "\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC"
    "\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102\u2107"
    "\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139"
    "\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE"
    "\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E"
    "\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\U00010400-\U0001044F"
    "\U000104B0-\U000104D3\U000104D8-\U000104FB\U00010C80-\U00010CB2\U00010CC0-\U00010CF2"
    "\U000118A0-\U000118DF\U0001E900-\U0001E943"
    "]+";
constexpr std::string_view kCjk = "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+";

void AddRegex(std::string_view regex, std::vector<SplitStep>* steps) {
  std::optional<SplitPattern> pattern = SplitPattern::FromRegex(regex);
  STRUCTATTN_CHECK(pattern.has_value());
  steps->push_back({.pattern = *std::move(pattern)});
}

std::vector<SplitStep> StepsOf(Splits splits) {
  const auto words = [](WordPattern pattern) {
    return SplitStep{.pattern = SplitPattern::Words(pattern)};
  };
  const SplitStep digits{.pattern = SplitPattern::Digits(/*individual=*/true)};
  std::vector<SplitStep> steps;
  switch (splits) {
    case Splits::kGpt2:
      return {words(WordPattern::kGpt2)};
    case Splits::kDigitsGpt2:
      return {digits, words(WordPattern::kGpt2)};
    case Splits::kLlama3:
      return {words(WordPattern::kLlama3)};
    case Splits::kQwen2:
      return {words(WordPattern::kQwen2)};
    case Splits::kDeepseekLlm:
      AddRegex("[\r\n]", &steps);
      AddRegex(kCasedWords, &steps);
      AddRegex("\\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+", &steps);
      AddRegex("\\s+$", &steps);
      AddRegex(kCjk, &steps);
      break;
    case Splits::kDeepseekCoder:
      AddRegex("[\r\n]", &steps);
      AddRegex("\\s?\\p{L}+", &steps);
      AddRegex("\\s?\\p{P}+", &steps);
      AddRegex(kCjk, &steps);
      break;
  }
  steps.push_back(digits);
  return steps;
}

}  // namespace

absl::StatusOr<GgufFamily> FindGgufFamily(std::string_view pre) {
  std::string names;
  for (const Family& family : kFamilies) {
    if (family.name == pre) {
      return GgufFamily{.splits = StepsOf(family.splits),
                        .nfc = (family.traits & kNfc) != 0,
                        .ignore_merges = (family.traits & kIgnoreMerges) != 0,
                        .adds_bos = (family.traits & kAddsBos) != 0,
                        .plain_tokens = family.plain_tokens};
    }
    absl::StrAppend(&names, names.empty() ? "" : ", ", std::string(family.name));
  }
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.pre: \"", std::string(pre),
                                                 "\" is not supported: supported are ", names));
}

}  // namespace structattn
