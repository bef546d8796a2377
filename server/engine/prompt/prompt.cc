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
    return InvalidField(
        field, "GROUP_WITHOUT_TABLE",
        absl::StrCat("given as ", *segment.group, ", but an explicit group needs rule.table"));
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
    const TextSegment text = AsText(segment);
    STRUCTATTN_ASSIGN_OR_RETURN(const std::vector<Token> encoded,
                                tokenizer.Encode({&text, 1}, stop));
    for (const Token& token : encoded) tokens.Append(token.id, index);
  }
  return tokens;
}

// Special tokens go around the whole prompt in both modes, unless it came as ids altogether.
absl::StatusOr<SegmentedTokens> EncodeSegments(const Prompt& prompt, const Tokenizer& tokenizer,
                                               const std::stop_token& stop) {
  const bool all_ids = std::all_of(prompt.segments.begin(), prompt.segments.end(), HasIds);
  const bool joint = prompt.tokenization == Tokenization::kJoint && !all_ids;
  STRUCTATTN_ASSIGN_OR_RETURN(
      SegmentedTokens body,
      joint ? EncodeJoint(prompt, tokenizer, stop) : EncodePerSegment(prompt, tokenizer, stop));
  if (all_ids) return body;
  SegmentedTokens tokens;
  for (int32_t id : tokenizer.special_prefix()) tokens.Append(id, kNoSegment);
  tokens.ids.insert(tokens.ids.end(), body.ids.begin(), body.ids.end());
  tokens.segments.insert(tokens.segments.end(), body.segments.begin(), body.segments.end());
  for (int32_t id : tokenizer.special_suffix()) tokens.Append(id, kNoSegment);
  return tokens;
}

absl::Status CheckTokenCount(const SegmentedTokens& tokens, int64_t context_length) {
  const bool has_content = std::any_of(tokens.segments.begin(), tokens.segments.end(),
                                       [](int32_t segment) { return segment != kNoSegment; });
  if (!has_content) {
    return InvalidField("segments", "EMPTY_PROMPT",
                        "no segment yields a token; at least one must have text or token_ids");
  }
  if (static_cast<int64_t>(tokens.ids.size()) > context_length) {
    return InvalidField(
        "segments", "PROMPT_TOO_LONG",
        absl::StrCat(tokens.ids.size(), " tokens; the model's context length is ", context_length));
  }
  return absl::OkStatus();
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

absl::StatusOr<std::vector<int32_t>> EncodeIds(const Prompt& prompt, const Tokenizer& tokenizer,
                                               const std::stop_token& stop) {
  STRUCTATTN_ASSIGN_OR_RETURN(SegmentedTokens tokens, EncodeSegments(prompt, tokenizer, stop));
  return std::move(tokens.ids);
}

std::vector<int32_t> EncodeText(std::string_view text, const Tokenizer& tokenizer) {
  const TextSegment segment = {.text = text};
  std::vector<int32_t> ids;
  for (const Token& token : tokenizer.Encode({&segment, 1})) ids.push_back(token.id);
  return ids;
}

absl::StatusOr<EncodedPrompt> EncodePrompt(const Prompt& prompt,
                                           std::optional<int32_t> generated_group,
                                           const Tokenizer& tokenizer, const PromptLimits& limits) {
  STRUCTATTN_RETURN_IF_ERROR(CheckSegments(prompt, limits));
  STRUCTATTN_ASSIGN_OR_RETURN(const RuleTable table, MakeRuleTable(prompt));
  if (generated_group.has_value()) {
    STRUCTATTN_RETURN_IF_ERROR(CheckNamedGroup("generated_group", *generated_group, table));
  }
  STRUCTATTN_ASSIGN_OR_RETURN(SegmentedTokens tokens,
                              EncodeSegments(prompt, tokenizer, limits.stop));
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
