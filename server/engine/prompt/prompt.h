// From typed segments to tokens with groups, positions and visibility: the heart of the API.
// Pure: runs no model, knows no torch and no gRPC.
#ifndef STRUCTATTN_SERVER_ENGINE_PROMPT_PROMPT_H_
#define STRUCTATTN_SERVER_ENGINE_PROMPT_PROMPT_H_

#include <cstdint>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/attention/structure.h"
#include "server/model/tokenizer/tokenizer.h"

namespace structattn::engine {

enum class SegmentType { kInstruction, kFewShot, kContext, kQuestion, kSeparator, kAnswerCue };
enum class Tokenization { kJoint, kPerSegment };

struct Segment {
  SegmentType type;
  std::variant<std::string, std::vector<int32_t>> content;  // Text, or token ids.
  std::optional<int32_t> paraphrase_index = {};
  std::optional<int32_t> group = {};
  bool parse_special = false;
};

// visible[g]: the groups that g sees, as the client sent them (not yet checked).
using RuleRows = std::vector<std::vector<int32_t>>;

struct Prompt {
  std::vector<Segment> segments;
  std::variant<RulePreset, RuleRows> rule = RulePreset::kAnchored;
  PositionPolicy positions = PositionPolicy::kSequential;
  Tokenization tokenization = Tokenization::kJoint;
  bool add_special_tokens = true;  // Those that the tokenizer puts in front of a text (BOS).
};

struct PromptLimits {
  int64_t vocabulary_size;   // The model's; token ids must be below.
  int64_t context_length;    // Tokens.
  int64_t max_prompt_bytes;  // Over all segments' text.
  int32_t max_segments;
  // Stands for a prompt without a token of its own to which the tokenizer adds none, so that text
  // can be scored behind it. Absent: a prompt without a token of its own is refused.
  std::optional<int32_t> empty_prompt_token = {};
  // Ends encoding early, with CANCELLED.
  std::stop_token stop = {};
};

struct EncodedPrompt {
  std::vector<int32_t> token_ids;
  std::vector<int32_t> segments;  // Per token; -1 for special tokens that were added.
  int32_t segment_count = 0;      // Segments of the prompt, those without tokens included.
  Structure structure;            // Groups, positions and rule of the prompt's tokens.
};

// Checks what can be checked without a tokenizer: segments and rule. Errors of this and of
// EncodePrompt are FieldErrors with paths in the prompt ("segments[3].group", "rule[2]" for a row
// of a rule table) or "generated_group".
absl::Status CheckPrompt(const Prompt& prompt, const PromptLimits& limits);

// Encodes a prompt that has passed CheckPrompt. `generated_group` (absent: nothing will be
// generated) must see itself under the rule as well.
absl::StatusOr<EncodedPrompt> EncodePrompt(const Prompt& prompt,
                                           std::optional<int32_t> generated_group,
                                           const Tokenizer& tokenizer, const PromptLimits& limits);

// The group of the segment's tokens.
int GroupOf(const Segment& segment);

// The token ids of a prompt's own segments, without special tokens around them. It is a prompt that
// EncodePrompt accepted, or one with more text behind.
absl::StatusOr<std::vector<int32_t>> EncodeOwnIds(const Prompt& prompt, const Tokenizer& tokenizer,
                                                  const std::stop_token& stop);

// The token ids of a text on its own, without the special tokens around a prompt.
absl::StatusOr<std::vector<int32_t>> EncodeText(const TextSegment& text, const Tokenizer& tokenizer,
                                                const std::stop_token& stop);

// Text may hold special tokens that the tokenizer knows and the model does not embed: an error at
// `field`.
absl::Status CheckEmbeddedIds(const std::string& field, std::span<const int32_t> ids,
                              const Tokenizer& tokenizer, int64_t vocabulary_size);

// A group that a request names at `field` must be in 0..63, have a row and see itself.
absl::Status CheckNamedGroup(const std::string& field, int32_t group, const RuleTable& table);

// SHA-256 (hex) of groups, positions and the rule's rows: Provenance.structure_digest.
std::string StructureDigest(const Structure& structure);

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_PROMPT_PROMPT_H_
