// See prompt.h: checks segments and rule, encodes text, gives every token its group and position.
#include "server/engine/prompt/prompt.h"

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"
#include "server/model/sha256.h"
#include "server/model/status_macros.h"

namespace structattn::engine {
namespace {

constexpr int kLargestParaphraseIndex = kMaxGroups - 2;
constexpr int32_t kNoSegment = -1;

// Tokens with the segment of each, before groups are known.
struct SegmentedTokens {
  std::vector<int32_t> ids;
  std::vector<int32_t> segments;

  void Append(int32_t id, int32_t segment) {
    ids.push_back(id);
    segments.push_back(segment);
  }
};

std::string SegmentField(size_t index, const char* name) {
  return absl::StrCat("segments[", index, "].", name);
}

bool HasIds(const Segment& segment) {
  return std::holds_alternative<std::vector<int32_t>>(segment.content);
}

bool HasOnlyIds(const Prompt& prompt) { return std::ranges::all_of(prompt.segments, HasIds); }

absl::Status CheckParaphraseIndex(const Segment& segment, size_t index) {
  const std::string field = SegmentField(index, "paraphrase_index");
  if (segment.type != SegmentType::kQuestion) {
    if (!segment.paraphrase_index.has_value()) return absl::OkStatus();
    return InvalidField(field, "PARAPHRASE_INDEX_NOT_ALLOWED",
                        absl::StrCat("given as ", *segment.paraphrase_index,
                                     ", but only a question segment carries one"));
  }
  if (!segment.paraphrase_index.has_value()) {
    if (segment.group.has_value()) return absl::OkStatus();
    return InvalidField(
        field, "PARAPHRASE_INDEX_MISSING",
        absl::StrCat("missing; a question needs one in 0..", kLargestParaphraseIndex));
  }
  if (*segment.paraphrase_index < 0 || *segment.paraphrase_index > kLargestParaphraseIndex) {
    return InvalidField(
        field, "PARAPHRASE_INDEX_OUT_OF_RANGE",
        absl::StrCat(*segment.paraphrase_index, " is not in 0..", kLargestParaphraseIndex));
  }
  return absl::OkStatus();
}

absl::Status CheckGroup(const Segment& segment, size_t index, bool explicit_table) {
  if (!segment.group.has_value()) return absl::OkStatus();
  const std::string field = SegmentField(index, "group");
  if (!explicit_table) {
    return InvalidField(field, "GROUP_WITHOUT_TABLE",
                        absl::StrCat("given as ", *segment.group,
                                     ", but an explicit group needs a table as the rule"));
  }
  if (*segment.group < 0 || *segment.group >= kMaxGroups) {
    return InvalidField(field, "GROUP_OUT_OF_RANGE",
                        absl::StrCat(*segment.group, " is not in 0..", kMaxGroups - 1));
  }
  return absl::OkStatus();
}

absl::Status CheckTokenIds(const Segment& segment, size_t index, int64_t vocabulary_size) {
  const std::vector<int32_t>& ids = std::get<std::vector<int32_t>>(segment.content);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocabulary_size) {
      return InvalidField(absl::StrCat(SegmentField(index, "token_ids"), "[", i, "]"),
                          "TOKEN_ID_OUT_OF_RANGE",
                          absl::StrCat(ids[i], " is not in 0..", vocabulary_size - 1));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPromptBytes(const Prompt& prompt, int64_t max_prompt_bytes) {
  int64_t bytes = 0;
  for (const Segment& segment : prompt.segments) {
    if (!HasIds(segment)) {
      bytes += static_cast<int64_t>(std::get<std::string>(segment.content).size());
    }
  }
  if (bytes <= max_prompt_bytes) return absl::OkStatus();
  return InvalidField(
      "segments", "PROMPT_TOO_LARGE",
      absl::StrCat(bytes, " bytes of text; at most ", max_prompt_bytes, " are allowed"));
}

absl::Status CheckSegments(const Prompt& prompt, const PromptLimits& limits) {
  const size_t count = prompt.segments.size();
  if (count == 0) {
    return InvalidField("segments", "NO_SEGMENTS", "empty; at least one segment is needed");
  }
  if (count > static_cast<size_t>(limits.max_segments)) {
    return InvalidField(
        "segments", "TOO_MANY_SEGMENTS",
        absl::StrCat(count, " given; at most ", limits.max_segments, " are allowed"));
  }
  STRUCTATTN_RETURN_IF_ERROR(CheckPromptBytes(prompt, limits.max_prompt_bytes));
  const bool explicit_table = std::holds_alternative<RuleRows>(prompt.rule);
  const bool first_has_ids = HasIds(prompt.segments[0]);
  for (size_t i = 0; i < count; ++i) {
    const Segment& segment = prompt.segments[i];
    STRUCTATTN_RETURN_IF_ERROR(CheckParaphraseIndex(segment, i));
    STRUCTATTN_RETURN_IF_ERROR(CheckGroup(segment, i, explicit_table));
    if (HasIds(segment)) {
      STRUCTATTN_RETURN_IF_ERROR(CheckTokenIds(segment, i, limits.vocabulary_size));
    }
    if (prompt.tokenization == Tokenization::kJoint && HasIds(segment) != first_has_ids) {
      return InvalidField(SegmentField(i, first_has_ids ? "text" : "token_ids"),
                          "MIXED_TEXT_AND_IDS",
                          "joint tokenization takes text in all segments or token_ids in all; "
                          "use per_segment to mix them");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<RuleTable> MakeRuleTable(const Prompt& prompt) {
  if (const RulePreset* preset = std::get_if<RulePreset>(&prompt.rule)) {
    return RuleTable::Preset(*preset);
  }
  const RuleRows& rows = std::get<RuleRows>(prompt.rule);
  if (rows.empty() || rows.size() > kMaxGroups) {
    return InvalidField("rule", "TABLE_SIZE_OUT_OF_RANGE",
                        absl::StrCat(rows.size(), " rows; 1..", kMaxGroups, " are allowed"));
  }
  RuleTable table;
  table.rows = static_cast<int>(rows.size());
  for (size_t g = 0; g < rows.size(); ++g) {
    for (size_t i = 0; i < rows[g].size(); ++i) {
      const int32_t group = rows[g][i];
      if (group < 0 || group >= kMaxGroups) {
        return InvalidField(absl::StrCat("rule[", g, "][", i, "]"), "GROUP_OUT_OF_RANGE",
                            absl::StrCat(group, " is not in 0..", kMaxGroups - 1));
      }
      table.visible[g] |= uint64_t{1} << group;
    }
  }
  return table;
}

// A group that is used needs a row in the table and must see itself, else its rows would have no
// visible key at all. `user` is the field that uses it.
absl::Status CheckUsedGroup(const RuleTable& table, int32_t group, const std::string& user) {
  if (group >= table.rows) {
    return InvalidField(
        "rule", "TABLE_TOO_SMALL",
        absl::StrCat(table.rows, " rows, but ", user, " uses group ", group, "; it needs a row"));
  }
  if (!table.Sees(group, group)) {
    return InvalidField(
        absl::StrCat("rule[", group, "]"), "GROUP_NOT_SELF_VISIBLE",
        absl::StrCat("group ", group, " is used by ", user,
                     " but does not see itself; to switch a group off, let no other "
                     "group see it"));
  }
  return absl::OkStatus();
}

TextSegment AsText(const Segment& segment) {
  return {.text = std::get<std::string>(segment.content), .parse_special = segment.parse_special};
}

absl::StatusOr<SegmentedTokens> EncodeJoint(const Prompt& prompt, const Tokenizer& tokenizer,
                                            const std::stop_token& stop) {
  std::vector<TextSegment> texts;
  texts.reserve(prompt.segments.size());
  for (const Segment& segment : prompt.segments) texts.push_back(AsText(segment));
  STRUCTATTN_ASSIGN_OR_RETURN(const std::vector<Token> encoded, tokenizer.Encode(texts, stop));
  SegmentedTokens tokens;
  for (const Token& token : encoded) tokens.Append(token.id, token.segment);
  return tokens;
}

absl::StatusOr<SegmentedTokens> EncodePerSegment(const Prompt& prompt, const Tokenizer& tokenizer,
                                                 const std::stop_token& stop) {
  SegmentedTokens tokens;
  for (size_t i = 0; i < prompt.segments.size(); ++i) {
    const Segment& segment = prompt.segments[i];
    const int32_t index = static_cast<int32_t>(i);
    if (HasIds(segment)) {
      for (int32_t id : std::get<std::vector<int32_t>>(segment.content)) tokens.Append(id, index);
      continue;
    }
    STRUCTATTN_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                                EncodeText(AsText(segment), tokenizer, stop));
    for (const int32_t id : ids) tokens.Append(id, index);
  }
  return tokens;
}

// The tokens of the prompt's own segments.
absl::StatusOr<SegmentedTokens> EncodeOwn(const Prompt& prompt, const Tokenizer& tokenizer,
                                          const std::stop_token& stop) {
  const bool joint = prompt.tokenization == Tokenization::kJoint && !HasOnlyIds(prompt);
  return joint ? EncodeJoint(prompt, tokenizer, stop) : EncodePerSegment(prompt, tokenizer, stop);
}

// The special tokens in front of a prompt. One that begins with them already gets no second ones.
std::span<const int32_t> SpecialTokensBefore(const SegmentedTokens& own, const Prompt& prompt,
                                             const Tokenizer& tokenizer) {
  if (!prompt.add_special_tokens || HasOnlyIds(prompt)) return {};
  const std::span<const int32_t> prefix = tokenizer.special_prefix();
  const bool has_its_own = own.ids.size() >= prefix.size() &&
                           std::ranges::equal(prefix, std::span(own.ids).first(prefix.size()));
  return has_its_own ? std::span<const int32_t>() : prefix;
}

// Tokens behind a text (EOS of an embedding model) are never added: a prompt is continued.
absl::StatusOr<SegmentedTokens> EncodeSegments(const Prompt& prompt, const Tokenizer& tokenizer,
                                               const PromptLimits& limits) {
  STRUCTATTN_ASSIGN_OR_RETURN(const SegmentedTokens own, EncodeOwn(prompt, tokenizer, limits.stop));
  const bool is_empty = own.ids.empty();
  if (is_empty && !limits.empty_prompt_token.has_value()) {
    return InvalidField("segments", "EMPTY_PROMPT",
                        "no segment yields a token; at least one must have text or token_ids");
  }
  SegmentedTokens tokens;
  for (const int32_t id : SpecialTokensBefore(own, prompt, tokenizer)) {
    tokens.Append(id, kNoSegment);
  }
  if (is_empty && tokens.ids.empty()) tokens.Append(*limits.empty_prompt_token, kNoSegment);
  tokens.ids.insert(tokens.ids.end(), own.ids.begin(), own.ids.end());
  tokens.segments.insert(tokens.segments.end(), own.segments.begin(), own.segments.end());
  return tokens;
}

absl::Status CheckTokenCount(const SegmentedTokens& tokens, int64_t context_length) {
  if (static_cast<int64_t>(tokens.ids.size()) <= context_length) return absl::OkStatus();
  return InvalidField(
      "segments", "PROMPT_TOO_LONG",
      absl::StrCat(tokens.ids.size(), " tokens; the model's context length is ", context_length));
}

}  // namespace

absl::Status CheckNamedGroup(const std::string& field, int32_t group, const RuleTable& table) {
  if (group < 0 || group >= kMaxGroups) {
    return InvalidField(field, "GROUP_OUT_OF_RANGE",
                        absl::StrCat(group, " is not in 0..", kMaxGroups - 1));
  }
  return CheckUsedGroup(table, group, field);
}

absl::Status CheckPrompt(const Prompt& prompt, const PromptLimits& limits) {
  STRUCTATTN_RETURN_IF_ERROR(CheckSegments(prompt, limits));
  return MakeRuleTable(prompt).status();
}

int GroupOf(const Segment& segment) {
  if (segment.group.has_value()) return *segment.group;
  return segment.type == SegmentType::kQuestion ? 1 + *segment.paraphrase_index : 0;
}

absl::Status CheckEmbeddedIds(const std::string& field, std::span<const int32_t> ids,
                              const Tokenizer& tokenizer, int64_t vocabulary_size) {
  const auto unknown = std::ranges::find_if(ids, [&](int32_t id) { return id >= vocabulary_size; });
  if (unknown == ids.end()) return absl::OkStatus();
  return InvalidField(field, "TOKEN_NOT_EMBEDDED",
                      absl::StrCat("holds token ", *unknown, ", \"", tokenizer.TokenBytes(*unknown),
                                   "\"; the model embeds only 0..", vocabulary_size - 1));
}

absl::StatusOr<std::vector<int32_t>> EncodeOwnIds(const Prompt& prompt, const Tokenizer& tokenizer,
                                                  const std::stop_token& stop) {
  STRUCTATTN_ASSIGN_OR_RETURN(SegmentedTokens own, EncodeOwn(prompt, tokenizer, stop));
  return std::move(own.ids);
}

absl::StatusOr<std::vector<int32_t>> EncodeText(const TextSegment& text, const Tokenizer& tokenizer,
                                                const std::stop_token& stop) {
  STRUCTATTN_ASSIGN_OR_RETURN(const std::vector<Token> tokens, tokenizer.Encode({&text, 1}, stop));
  std::vector<int32_t> ids;
  ids.reserve(tokens.size());
  for (const Token& token : tokens) ids.push_back(token.id);
  return ids;
}

absl::StatusOr<EncodedPrompt> EncodePrompt(const Prompt& prompt,
                                           std::optional<int32_t> generated_group,
                                           const Tokenizer& tokenizer, const PromptLimits& limits) {
  STRUCTATTN_ASSIGN_OR_RETURN(const RuleTable table, MakeRuleTable(prompt));
  if (generated_group.has_value()) {
    STRUCTATTN_RETURN_IF_ERROR(CheckNamedGroup("generated_group", *generated_group, table));
  }
  STRUCTATTN_ASSIGN_OR_RETURN(SegmentedTokens tokens, EncodeSegments(prompt, tokenizer, limits));
  STRUCTATTN_RETURN_IF_ERROR(
      CheckEmbeddedIds("segments", tokens.ids, tokenizer, limits.vocabulary_size));
  STRUCTATTN_RETURN_IF_ERROR(CheckTokenCount(tokens, limits.context_length));

  Structure structure(table, prompt.positions);
  int32_t checked_segment = kNoSegment - 1;
  for (int32_t segment : tokens.segments) {
    const int group = segment == kNoSegment ? 0 : GroupOf(prompt.segments[segment]);
    if (segment != checked_segment) {
      const std::string user =
          segment == kNoSegment ? "a special token" : absl::StrCat("segments[", segment, "]");
      STRUCTATTN_RETURN_IF_ERROR(CheckUsedGroup(table, group, user));
      checked_segment = segment;
    }
    structure.Append(group);
  }
  return EncodedPrompt{.token_ids = std::move(tokens.ids),
                       .segments = std::move(tokens.segments),
                       .segment_count = static_cast<int32_t>(prompt.segments.size()),
                       .structure = std::move(structure)};
}

std::string StructureDigest(const Structure& structure) {
  Sha256 digest;
  auto update = [&digest](const void* data, size_t bytes) {
    digest.Update({static_cast<const char*>(data), bytes});
  };
  const int64_t size = structure.size();
  update(&size, sizeof(size));
  update(structure.groups().data(), structure.groups().size_bytes());
  update(structure.positions().data(), structure.positions().size_bytes());
  for (int group = 0; group < kMaxGroups; ++group) {
    if (!((structure.used_groups() >> group) & 1)) continue;
    const uint64_t seen = structure.rule().visible[group] & structure.used_groups();
    update(&seen, sizeof(seen));
  }
  return digest.Hex();
}

}  // namespace structattn::engine
