// Implements per_paraphrase_prompts.h.
#include "server/engine/prompt/per_paraphrase_prompts.h"

#include <algorithm>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"
#include "server/model/status_macros.h"

namespace structattn::engine {
namespace {

// A per-paraphrase prompt.
struct PerParaphrasePrompt {
  int32_t group;
  Prompt prompt;
  std::vector<int32_t> origins;  // Where its segments stand in the whole prompt.
  std::optional<EncodedPrompt> encoded = {};
};

PerParaphrasePrompt Extract(const Prompt& whole, int32_t group) {
  PerParaphrasePrompt own{.group = group,
                          .prompt = {.segments = {},
                                     .rule = RulePreset::kCausal,
                                     .positions = PositionPolicy::kSequential,
                                     .tokenization = whole.tokenization,
                                     .add_special_tokens = whole.add_special_tokens},
                          .origins = {}};
  for (size_t i = 0; i < whole.segments.size(); ++i) {
    Segment segment = whole.segments[i];
    const bool is_question = segment.type == SegmentType::kQuestion;
    const int32_t asked = GroupOf(segment);
    if (is_question && asked != 0 && asked != group) continue;
    segment.group.reset();
    if (is_question) segment.paraphrase_index = 0;
    own.prompt.segments.push_back(std::move(segment));
    own.origins.push_back(static_cast<int32_t>(i));
  }
  return own;
}

absl::StatusOr<std::vector<PerParaphrasePrompt>> ExtractAll(const Prompt& whole,
                                                            int64_t max_bytes) {
  std::set<int32_t> groups;
  for (const Segment& segment : whole.segments) {
    if (segment.type == SegmentType::kQuestion) groups.insert(GroupOf(segment));
  }
  groups.erase(0);
  if (groups.empty()) {
    return InvalidField(
        "segments", "NO_PARAPHRASE",
        "no question with a group of its own; fusion over per-paraphrase prompts needs one");
  }
  std::vector<PerParaphrasePrompt> prompts;
  int64_t bytes = 0;
  for (const int32_t group : groups) {
    prompts.push_back(Extract(whole, group));
    for (const Segment& segment : prompts.back().prompt.segments) {
      const auto* text = std::get_if<std::string>(&segment.content);
      if (text != nullptr) bytes += static_cast<int64_t>(text->size());
    }
  }
  if (bytes <= max_bytes) return prompts;
  return InvalidField(
      "segments", "PROMPT_TOO_LARGE",
      absl::StrCat("the per-paraphrase prompts of ", prompts.size(), " paraphrases are ", bytes,
                   " bytes of text; at most ", max_bytes, " are allowed"));
}

// How many tokens all begin with alike; each keeps one for itself.
size_t SharedTokens(std::span<const PerParaphrasePrompt> prompts) {
  const std::vector<int32_t>& first = prompts[0].encoded->token_ids;
  size_t shared = first.size() - 1;
  for (const PerParaphrasePrompt& own : prompts) {
    const std::vector<int32_t>& ids = own.encoded->token_ids;
    shared = std::min(shared, ids.size() - 1);
    const auto end = first.begin() + static_cast<int64_t>(shared);
    shared = std::mismatch(first.begin(), end, ids.begin()).first - first.begin();
  }
  return shared;
}

void Append(const PerParaphrasePrompt& own, size_t begin, size_t end, int32_t group,
            EncodedPrompt* packed) {
  for (size_t i = begin; i < end; ++i) {
    const int32_t segment = own.encoded->segments[i];
    packed->token_ids.push_back(own.encoded->token_ids[i]);
    packed->segments.push_back(segment < 0 ? segment : own.origins[segment]);
    packed->structure.Append(group);
  }
}

}  // namespace

absl::StatusOr<PerParaphrasePrompts> EncodePerParaphrasePrompts(const Prompt& prompt,
                                                                const Tokenizer& tokenizer,
                                                                const PromptLimits& limits) {
  STRUCTATTN_ASSIGN_OR_RETURN(std::vector<PerParaphrasePrompt> prompts,
                              ExtractAll(prompt, limits.max_prompt_bytes));
  for (PerParaphrasePrompt& own : prompts) {
    STRUCTATTN_ASSIGN_OR_RETURN(own.encoded,
                                EncodePrompt(own.prompt, std::nullopt, tokenizer, limits));
  }
  const size_t shared = SharedTokens(prompts);
  PerParaphrasePrompts packed{
      .prompt = {.token_ids = {},
                 .segments = {},
                 .segment_count = static_cast<int32_t>(prompt.segments.size()),
                 .structure =
                     Structure(RuleTable::Preset(RulePreset::kShared), PositionPolicy::kAligned)},
      .members = {}};
  Append(prompts[0], 0, shared, /*group=*/0, &packed.prompt);
  for (const PerParaphrasePrompt& own : prompts) {
    Append(own, shared, own.encoded->token_ids.size(), own.group, &packed.prompt);
    packed.members.push_back({.group = own.group,
                              .cue = {},
                              .predicted_from = packed.prompt.structure.size() - 1,
                              .per_paraphrase_prompt = true});
  }
  return packed;
}

}  // namespace structattn::engine
