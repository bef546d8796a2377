// Implements continuation_tokens.h.
#include "server/engine/prompt/continuation_tokens.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/utf8.h"

namespace structattn::engine {
namespace {

// What Python's str.rstrip takes away.
bool IsPythonSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}

// Where the white space at the end of a valid UTF-8 text begins.
size_t TrailingSpaceBegin(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    const Utf8Char last = CharBefore(text, end);
    if (!IsPythonSpace(last.code_point)) break;
    end -= last.size;
  }
  return end;
}

// Takes the white space at the end of the prompt's text away and returns it.
std::string TakeTrailingSpace(Prompt* prompt) {
  std::string taken;
  for (auto segment = prompt->segments.rbegin(); segment != prompt->segments.rend(); ++segment) {
    std::string* const text = std::get_if<std::string>(&segment->content);
    if (text == nullptr) break;
    const size_t begin = TrailingSpaceBegin(*text);
    taken.insert(0, *text, begin);
    text->resize(begin);
    if (begin > 0) break;
  }
  return taken;
}

// Special tokens in front of the prompt's own.
int64_t CountAddedTokens(const EncodedPrompt& prompt) {
  const auto is_own = [](int32_t segment) { return segment >= 0; };
  return std::ranges::find_if(prompt.segments, is_own) - prompt.segments.begin();
}

std::string FieldOf(size_t continuation) {
  return absl::StrCat("continuations[", continuation, "]");
}

// Text goes behind text, ids behind anything.
absl::Status CheckKinds(const Prompt& prompt, std::span<const ContinuationText> continuations) {
  const bool joint = prompt.tokenization == Tokenization::kJoint;
  const auto has_ids = [](const Segment& segment) { return segment.content.index() == 1; };
  const bool ids_before = std::ranges::any_of(prompt.segments, has_ids);
  for (size_t i = 0; i < continuations.size(); ++i) {
    const bool is_text = continuations[i].is_text();
    if (is_text != continuations[0].is_text()) {
      return InvalidField(absl::StrCat(FieldOf(i), is_text ? ".text" : ".token_ids"),
                          "MIXED_TEXT_AND_IDS",
                          "continuations[0] is given the other way; all must be text or all ids");
    }
    if (is_text && joint && ids_before) {
      return InvalidField(absl::StrCat(FieldOf(i), ".text"), "MIXED_TEXT_AND_IDS",
                          "the prompt is given as token ids; under joint tokenization its "
                          "continuations must be, too");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLength(size_t continuation, int64_t scored, int64_t prompt_tokens,
                         const PromptLimits& limits) {
  if (scored <= 0) {
    return InvalidField(
        FieldOf(continuation), "EMPTY_CONTINUATION",
        "yields no token behind the prompt's own: it is empty, or becomes part of the "
        "prompt's last token; at least one is needed");
  }
  if (prompt_tokens + scored <= limits.context_length + 1) return absl::OkStatus();
  return InvalidField(FieldOf(continuation), "CONTINUATION_TOO_LONG",
                      absl::StrCat(scored, " tokens behind ", prompt_tokens,
                                   " of the prompt; the model's context length is ",
                                   limits.context_length, ", and both may have one token more"));
}

absl::Status CheckIds(size_t continuation, std::span<const int32_t> ids, int64_t vocabulary_size) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocabulary_size) continue;
    return InvalidField(absl::StrCat(FieldOf(continuation), ".token_ids[", i, "]"),
                        "TOKEN_ID_OUT_OF_RANGE",
                        absl::StrCat(ids[i], " is not in 0..", vocabulary_size - 1));
  }
  return absl::OkStatus();
}

// Puts a continuation behind the prompt that has these ids: one there is, or a new one.
EncodedContinuations::Place Insert(std::span<const int32_t> prompt_ids, std::vector<int32_t> ids,
                                   std::vector<ScoredPrompt>* prompts) {
  auto found = std::ranges::find_if(*prompts, [&](const ScoredPrompt& scored) {
    return std::ranges::equal(scored.prompt.token_ids, prompt_ids);
  });
  if (found == prompts->end()) {
    ScoredPrompt changed{.prompt = prompts->front().prompt, .group = prompts->front().group};
    changed.prompt.token_ids.assign(prompt_ids.begin(), prompt_ids.end());
    prompts->push_back(std::move(changed));
    found = prompts->end() - 1;
  }
  found->continuations.push_back(std::move(ids));
  return {.prompt = static_cast<int32_t>(found - prompts->begin()),
          .continuation = static_cast<int32_t>(found->continuations.size()) - 1};
}

}  // namespace

absl::StatusOr<EncodedContinuations> EncodeContinuations(
    Prompt prompt, int32_t group, std::span<const ContinuationText> continuations,
    const Tokenizer& tokenizer, const PromptLimits& limits) {
  STRUCTATTN_RETURN_IF_ERROR(CheckKinds(prompt, continuations));
  const bool is_text = !continuations.empty() && continuations[0].is_text();
  const std::string moved = is_text ? TakeTrailingSpace(&prompt) : "";
  STRUCTATTN_ASSIGN_OR_RETURN(EncodedPrompt encoded,
                              EncodePrompt(prompt, group, tokenizer, limits));
  const int64_t border = encoded.structure.size();
  const bool joint = is_text && prompt.tokenization == Tokenization::kJoint;
  // How many tokens stand in front of what is encoded again with each continuation.
  const int64_t kept = joint ? CountAddedTokens(encoded) : border;
  EncodedContinuations result;
  result.prompts.push_back({.prompt = std::move(encoded), .group = group});
  for (size_t i = 0; i < continuations.size(); ++i) {
    std::vector<int32_t> own;
    if (!is_text) {
      own = std::get<std::vector<int32_t>>(continuations[i].content);
      STRUCTATTN_RETURN_IF_ERROR(CheckIds(i, own, limits.vocabulary_size));
    } else {
      const std::string text = moved + std::get<std::string>(continuations[i].content);
      const bool parse_special = continuations[i].parse_special;
      if (joint) {
        prompt.segments.push_back(
            {.type = SegmentType::kAnswerCue, .content = text, .parse_special = parse_special});
        STRUCTATTN_ASSIGN_OR_RETURN(own, EncodeOwnIds(prompt, tokenizer, limits.stop));
        prompt.segments.pop_back();
      } else {
        STRUCTATTN_ASSIGN_OR_RETURN(own, EncodeText({text, parse_special}, tokenizer, limits.stop));
      }
    }
    STRUCTATTN_RETURN_IF_ERROR(
        CheckEmbeddedIds(FieldOf(i), own, tokenizer, limits.vocabulary_size));
    // All tokens of prompt and continuation.
    std::vector<int32_t> ids = result.prompts[0].prompt.token_ids;
    ids.resize(kept);
    ids.insert(ids.end(), own.begin(), own.end());
    STRUCTATTN_RETURN_IF_ERROR(
        CheckLength(i, static_cast<int64_t>(ids.size()) - border, border, limits));
    result.places.push_back(
        Insert(std::span(ids).first(border), {ids.begin() + border, ids.end()}, &result.prompts));
  }
  return result;
}

std::vector<ScoredPrompt> CutIntoWindows(std::span<const int32_t> text_ids, int32_t before,
                                         int32_t window_tokens) {
  std::vector<int32_t> ids = {before};
  ids.insert(ids.end(), text_ids.begin(), text_ids.end());
  const int32_t size = static_cast<int32_t>(ids.size());
  std::vector<ScoredPrompt> windows;
  for (int32_t begin = 1; begin < size; begin += window_tokens) {  // Of the tokens scored.
    const int32_t end = std::min(begin + window_tokens, size);
    // The window's last token is not computed: before it lie as many as it may hold.
    const int32_t first = begin == 1 ? 0 : std::max(end - 1 - window_tokens, 0);
    ScoredPrompt window{.prompt = {.token_ids = {ids.begin() + first, ids.begin() + begin},
                                   .segments = std::vector<int32_t>(begin - first, 0),
                                   .segment_count = 1,
                                   .structure = Structure(RuleTable::Preset(RulePreset::kCausal),
                                                          PositionPolicy::kSequential)}};
    for (int32_t i = first; i < begin; ++i) window.prompt.structure.Append(0);
    window.continuations.push_back({ids.begin() + begin, ids.begin() + end});
    windows.push_back(std::move(window));
  }
  return windows;
}

}  // namespace structattn::engine
