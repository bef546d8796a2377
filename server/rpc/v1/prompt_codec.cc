// Implements prompt_codec.h.
#include "server/rpc/v1/prompt_codec.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"
#include "server/model/status_macros.h"

namespace structattn::rpc {
namespace {

absl::StatusOr<engine::SegmentType> DecodeSegmentType(const std::string& field,
                                                      v1::SegmentType type) {
  switch (type) {
    case v1::SEGMENT_TYPE_INSTRUCTION:
      return engine::SegmentType::kInstruction;
    case v1::SEGMENT_TYPE_FEW_SHOT:
      return engine::SegmentType::kFewShot;
    case v1::SEGMENT_TYPE_CONTEXT:
      return engine::SegmentType::kContext;
    case v1::SEGMENT_TYPE_QUESTION:
      return engine::SegmentType::kQuestion;
    case v1::SEGMENT_TYPE_SEPARATOR:
      return engine::SegmentType::kSeparator;
    case v1::SEGMENT_TYPE_ANSWER_CUE:
      return engine::SegmentType::kAnswerCue;
    default:
      return UnknownEnum(field, type,
                         "INSTRUCTION, FEW_SHOT, CONTEXT, QUESTION, SEPARATOR, ANSWER_CUE");
  }
}

absl::StatusOr<RulePreset> DecodePreset(v1::RulePreset preset) {
  switch (preset) {
    case v1::RULE_PRESET_UNSPECIFIED:
    case v1::RULE_PRESET_ANCHORED:
      return RulePreset::kAnchored;
    case v1::RULE_PRESET_SHARED:
      return RulePreset::kShared;
    case v1::RULE_PRESET_ISOLATED:
      return RulePreset::kIsolated;
    case v1::RULE_PRESET_CAUSAL:
      return RulePreset::kCausal;
    default:
      return UnknownEnum("rule.preset", preset, "ANCHORED, SHARED, ISOLATED, CAUSAL");
  }
}

absl::StatusOr<PositionPolicy> DecodePositions(v1::PositionPolicy policy) {
  switch (policy) {
    case v1::POSITION_POLICY_UNSPECIFIED:
    case v1::POSITION_POLICY_SEQUENTIAL:
      return PositionPolicy::kSequential;
    case v1::POSITION_POLICY_ALIGNED:
      return PositionPolicy::kAligned;
    default:
      return UnknownEnum("positions", policy, "SEQUENTIAL, ALIGNED");
  }
}

absl::StatusOr<engine::Tokenization> DecodeTokenization(v1::Tokenization tokenization) {
  switch (tokenization) {
    case v1::TOKENIZATION_UNSPECIFIED:
    case v1::TOKENIZATION_JOINT:
      return engine::Tokenization::kJoint;
    case v1::TOKENIZATION_PER_SEGMENT:
      return engine::Tokenization::kPerSegment;
    default:
      return UnknownEnum("tokenization", tokenization, "JOINT, PER_SEGMENT");
  }
}

absl::StatusOr<engine::Segment> DecodeSegment(const v1::Segment& segment, int index) {
  const std::string field = absl::StrCat("segments[", index, "]");
  STRUCTATTN_ASSIGN_OR_RETURN(const engine::SegmentType type,
                              DecodeSegmentType(absl::StrCat(field, ".type"), segment.type()));
  engine::Segment decoded;
  decoded.type = type;
  decoded.parse_special = segment.parse_special();
  switch (segment.content_case()) {
    case v1::Segment::kText:
      decoded.content = segment.text();
      break;
    case v1::Segment::kTokenIds:
      decoded.content =
          std::vector<int32_t>(segment.token_ids().ids().begin(), segment.token_ids().ids().end());
      break;
    case v1::Segment::CONTENT_NOT_SET:
      return engine::InvalidField(field, "CONTENT_MISSING", "one of text, token_ids must be set");
  }
  if (segment.has_paraphrase_index()) decoded.paraphrase_index = segment.paraphrase_index();
  if (segment.has_group()) decoded.group = segment.group();
  return decoded;
}

// Comes before anything is made of them: a message of the allowed size can hold millions of either.
absl::Status CheckCounts(const v1::Prompt& prompt, const serving::Limits& limits) {
  if (prompt.segments_size() > limits.max_segments) {
    return engine::InvalidField("segments", "TOO_MANY_SEGMENTS",
                                absl::StrCat(prompt.segments_size(), " given; at most ",
                                             limits.max_segments, " are allowed"));
  }
  const int rows = prompt.rule().table().visible_size();
  if (rows <= kMaxGroups) return absl::OkStatus();
  return engine::InvalidField("rule", "TABLE_SIZE_OUT_OF_RANGE",
                              absl::StrCat(rows, " rows; 1..", kMaxGroups, " are allowed"));
}

}  // namespace

absl::Status UnknownEnum(std::string_view field, int value, std::string_view allowed) {
  return engine::InvalidField(field, "UNKNOWN_ENUM_VALUE",
                              absl::StrCat(value, " is none of ", std::string(allowed)));
}

absl::StatusOr<engine::Prompt> DecodePrompt(const v1::Prompt& prompt,
                                            const serving::Limits& limits) {
  STRUCTATTN_RETURN_IF_ERROR(CheckCounts(prompt, limits));
  engine::Prompt decoded;
  decoded.segments.reserve(prompt.segments_size());
  for (int i = 0; i < prompt.segments_size(); ++i) {
    STRUCTATTN_ASSIGN_OR_RETURN(engine::Segment segment, DecodeSegment(prompt.segments(i), i));
    decoded.segments.push_back(std::move(segment));
  }
  if (prompt.rule().has_table()) {
    engine::RuleRows rows;
    for (const v1::VisibleGroups& row : prompt.rule().table().visible()) {
      rows.emplace_back(row.groups().begin(), row.groups().end());
    }
    decoded.rule = std::move(rows);
  } else {
    STRUCTATTN_ASSIGN_OR_RETURN(decoded.rule, DecodePreset(prompt.rule().preset()));
  }
  STRUCTATTN_ASSIGN_OR_RETURN(decoded.positions, DecodePositions(prompt.positions()));
  STRUCTATTN_ASSIGN_OR_RETURN(decoded.tokenization, DecodeTokenization(prompt.tokenization()));
  if (prompt.has_add_special_tokens()) decoded.add_special_tokens = prompt.add_special_tokens();
  return decoded;
}

}  // namespace structattn::rpc
