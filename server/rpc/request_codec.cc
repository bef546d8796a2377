// See request_codec.h.
#include "server/rpc/request_codec.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"
#include "server/engine/prompt/branches.h"
#include "server/engine/prompt/per_paraphrase_prompts.h"
#include "server/engine/sampling/sampling_params.h"
#include "server/engine/task/generate_request.h"
#include "server/model/status_macros.h"
#include "server/rpc/fusion_codec.h"
#include "server/rpc/request_checks.h"

namespace structattn {
namespace {

constexpr size_t kMaxModelNameBytes = 64;
constexpr float kMaxTemperature = 100.0f;
constexpr float kMaxPenalty = 100.0f;
constexpr float kMaxLogitBias = 1000.0f;
constexpr int kMaxLogitBiasEntries = 1024;
constexpr int kMaxStopStrings = 64;
constexpr size_t kMaxStopStringBytes = 1024;
constexpr int kMaxStopTokenIds = 1024;
constexpr int32_t kDefaultMaxTokens = 128;
constexpr int kMaxBranches = 64;
constexpr size_t kMaxBranchCueBytes = 16384;
constexpr int32_t kMaxSamples = 64;
constexpr int32_t kMaxContinuations = 256;
constexpr int kMaxDecodedSegments = RequestLimits{}.max_segments;

absl::Status UnknownEnum(std::string_view field, int value, std::string_view allowed) {
  return engine::InvalidField(field, "UNKNOWN_ENUM_VALUE",
                              absl::StrCat(value, " is none of ", std::string(allowed)));
}

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

absl::StatusOr<std::vector<std::pair<int32_t, float>>> DecodeLogitBias(const v1::Sampling& sampling,
                                                                       int64_t vocabulary_size) {
  STRUCTATTN_RETURN_IF_ERROR(
      CheckCount("sampling.logit_bias", sampling.logit_bias_size(), kMaxLogitBiasEntries));
  std::vector<std::pair<int32_t, float>> biases(sampling.logit_bias().begin(),
                                                sampling.logit_bias().end());
  std::sort(biases.begin(), biases.end(),  // The wire's order is arbitrary; ours is not.
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [id, bias] : biases) {
    const std::string field = absl::StrCat("sampling.logit_bias[", id, "]");
    STRUCTATTN_RETURN_IF_ERROR(CheckTokenId(field, id, vocabulary_size));
    STRUCTATTN_RETURN_IF_ERROR(CheckRange(field, bias, {-kMaxLogitBias, kMaxLogitBias}));
  }
  return biases;
}

uint64_t DrawSeed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

absl::Status CheckStopStrings(const v1::Stopping& stopping) {
  STRUCTATTN_RETURN_IF_ERROR(
      CheckCount("stopping.stop_strings", stopping.stop_strings_size(), kMaxStopStrings));
  for (int i = 0; i < stopping.stop_strings_size(); ++i) {
    const size_t bytes = stopping.stop_strings(i).size();
    if (bytes == 0 || bytes > kMaxStopStringBytes) {
      return engine::InvalidField(
          absl::StrCat("stopping.stop_strings[", i, "]"), "STOP_STRING_LENGTH_OUT_OF_RANGE",
          absl::StrCat(bytes, " bytes; 1..", kMaxStopStringBytes, " are allowed"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStopTokenIds(const v1::Stopping& stopping, int64_t vocabulary_size) {
  STRUCTATTN_RETURN_IF_ERROR(
      CheckCount("stopping.stop_token_ids", stopping.stop_token_ids_size(), kMaxStopTokenIds));
  for (int i = 0; i < stopping.stop_token_ids_size(); ++i) {
    STRUCTATTN_RETURN_IF_ERROR(CheckTokenId(absl::StrCat("stopping.stop_token_ids[", i, "]"),
                                            stopping.stop_token_ids(i), vocabulary_size));
  }
  return absl::OkStatus();
}

// Before anything is made of them: a message of the allowed size can hold millions of either.
absl::Status CheckCounts(const v1::Prompt& prompt) {
  if (prompt.segments_size() > kMaxDecodedSegments) {
    return engine::InvalidField("segments", "TOO_MANY_SEGMENTS",
                                absl::StrCat(prompt.segments_size(), " given; at most ",
                                             kMaxDecodedSegments, " are allowed"));
  }
  const int rows = prompt.rule().table().visible_size();
  if (rows > kMaxGroups) {
    return engine::InvalidField("rule.table.visible", "TABLE_SIZE_OUT_OF_RANGE",
                                absl::StrCat(rows, " rows; 1..", kMaxGroups, " are allowed"));
  }
  return absl::OkStatus();
}

struct SampleCounts {
  int32_t samples;
  int32_t best_of;
};

absl::StatusOr<SampleCounts> DecodeSampleCounts(const v1::GenerateRequest& request) {
  const int branches = request.branches_size();
  STRUCTATTN_RETURN_IF_ERROR(CheckCount("branches", branches, kMaxBranches));
  if (branches > 0 && request.generated_group() != 0) {
    return engine::InvalidField(
        "generated_group", "GROUP_GIVEN_TWICE",
        absl::StrCat(request.generated_group(), " given beside branches, which names the groups"));
  }
  for (int i = 0; i < branches; ++i) {
    const size_t bytes = request.branches(i).branch_cue().size();
    if (bytes <= kMaxBranchCueBytes) continue;
    return engine::InvalidField(
        absl::StrCat("branches[", i, "].branch_cue"), "BRANCH_CUE_TOO_LONG",
        absl::StrCat(bytes, " bytes; at most ", kMaxBranchCueBytes, " are allowed"));
  }
  const int32_t n = request.has_n() ? request.n() : 1;
  if (n < 1 || n > kMaxSamples) {
    return engine::InvalidField("n", "VALUE_OUT_OF_RANGE",
                                absl::StrCat(n, " is not in 1..", kMaxSamples));
  }
  const int32_t best_of = request.has_best_of() ? request.best_of() : n;
  if (best_of < n || best_of > kMaxSamples) {
    return engine::InvalidField(
        "best_of", "VALUE_OUT_OF_RANGE",
        absl::StrCat(best_of, " is not in ", n, "..", kMaxSamples, "; it is n or more"));
  }
  const int32_t all = best_of * std::max(branches, 1);
  if (all > kMaxContinuations) {
    return engine::InvalidField(request.has_best_of() ? "best_of" : "n", "TOO_MANY_CONTINUATIONS",
                                absl::StrCat(best_of, " samples of ", branches, " branches are ",
                                             all, "; at most ", kMaxContinuations, " are allowed"));
  }
  return SampleCounts{.samples = n, .best_of = best_of};
}

// The prompt with its branches.
struct EncodedQuestion {
  engine::EncodedPrompt prompt;
  std::vector<engine::Branch> branches;
};

std::vector<engine::BranchText> BranchTexts(const v1::GenerateRequest& request) {
  std::vector<engine::BranchText> texts;
  for (const v1::Branch& branch : request.branches()) {
    texts.push_back({.group = branch.group(), .cue = branch.branch_cue()});
  }
  return texts;
}

absl::StatusOr<EncodedQuestion> EncodeQuestion(const v1::GenerateRequest& request,
                                               const Model& model, const RequestLimits& limits) {
  STRUCTATTN_ASSIGN_OR_RETURN(const engine::Prompt prompt, DecodePrompt(request.prompt()));
  const engine::PromptLimits prompt_limits = LimitsFor(model, limits);
  if (FusesPerParaphrasePrompts(request)) {
    STRUCTATTN_ASSIGN_OR_RETURN(
        engine::PerParaphrasePrompts own,
        engine::EncodePerParaphrasePrompts(prompt, *model.tokenizer, prompt_limits));
    return EncodedQuestion{.prompt = std::move(own.prompt), .branches = std::move(own.members)};
  }
  std::optional<int32_t> generated_group;
  if (request.branches().empty()) generated_group = request.generated_group();
  STRUCTATTN_ASSIGN_OR_RETURN(
      engine::EncodedPrompt encoded,
      engine::EncodePrompt(prompt, generated_group, *model.tokenizer, prompt_limits));
  STRUCTATTN_ASSIGN_OR_RETURN(
      std::vector<engine::Branch> branches,
      engine::EncodeBranches(BranchTexts(request), encoded, *model.tokenizer, prompt_limits));
  return EncodedQuestion{.prompt = std::move(encoded), .branches = std::move(branches)};
}

}  // namespace

absl::StatusOr<engine::Prompt> DecodePrompt(const v1::Prompt& prompt) {
  STRUCTATTN_RETURN_IF_ERROR(CheckCounts(prompt));
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
  return decoded;
}

absl::StatusOr<engine::SamplingParams> DecodeSampling(const v1::Sampling& sampling,
                                                      int64_t vocabulary_size) {
  engine::SamplingParams decoded;
  const auto read = [](bool present, float value, float* target) {
    if (present) *target = value;
  };
  read(sampling.has_temperature(), sampling.temperature(), &decoded.temperature);
  read(sampling.has_top_p(), sampling.top_p(), &decoded.top_p);
  read(sampling.has_min_p(), sampling.min_p(), &decoded.min_p);
  read(sampling.has_repetition_penalty(), sampling.repetition_penalty(),
       &decoded.repetition_penalty);
  read(sampling.has_presence_penalty(), sampling.presence_penalty(), &decoded.presence_penalty);
  read(sampling.has_frequency_penalty(), sampling.frequency_penalty(), &decoded.frequency_penalty);
  decoded.top_k = sampling.top_k();

  const struct {
    const char* field;
    float value;
    Range range;
  } checks[] = {
      {"sampling.temperature", decoded.temperature, {0.0f, kMaxTemperature}},
      {"sampling.top_p", decoded.top_p, {0.0f, 1.0f, false}},
      {"sampling.min_p", decoded.min_p, {0.0f, 1.0f}},
      {"sampling.repetition_penalty", decoded.repetition_penalty, {0.0f, kMaxPenalty, false}},
      {"sampling.presence_penalty", decoded.presence_penalty, {-kMaxPenalty, kMaxPenalty}},
      {"sampling.frequency_penalty", decoded.frequency_penalty, {-kMaxPenalty, kMaxPenalty}},
  };
  for (const auto& check : checks) {
    STRUCTATTN_RETURN_IF_ERROR(CheckRange(check.field, check.value, check.range));
  }
  if (decoded.top_k < 0) {
    return engine::InvalidField("sampling.top_k", "VALUE_OUT_OF_RANGE",
                                absl::StrCat(decoded.top_k, " is negative; 0 means off"));
  }
  STRUCTATTN_ASSIGN_OR_RETURN(decoded.logit_bias, DecodeLogitBias(sampling, vocabulary_size));
  if (sampling.has_seed()) {
    decoded.seed = sampling.seed();
  } else if (decoded.temperature > 0.0f) {
    decoded.seed = DrawSeed();
  }
  return decoded;
}

absl::StatusOr<engine::StoppingParams> DecodeStopping(const v1::Stopping& stopping,
                                                      const ModelConfig& config) {
  engine::StoppingParams decoded;
  const int32_t wanted = stopping.has_max_tokens() ? stopping.max_tokens() : kDefaultMaxTokens;
  if (wanted < 1) {
    return engine::InvalidField("stopping.max_tokens", "VALUE_OUT_OF_RANGE",
                                absl::StrCat(wanted, " is not 1 or more"));
  }
  // More than the context holds is no error: the answer is cut short there.
  decoded.max_tokens = static_cast<int32_t>(std::min<int64_t>(wanted, config.context_length));
  STRUCTATTN_RETURN_IF_ERROR(CheckStopStrings(stopping));
  STRUCTATTN_RETURN_IF_ERROR(CheckStopTokenIds(stopping, config.vocab_size));
  decoded.stop_strings.assign(stopping.stop_strings().begin(), stopping.stop_strings().end());
  decoded.stop_token_ids.assign(stopping.stop_token_ids().begin(), stopping.stop_token_ids().end());
  decoded.ignore_eos = stopping.ignore_eos();
  return decoded;
}

absl::StatusOr<engine::GenerateRequest> DecodeGenerateRequest(const v1::GenerateRequest& request,
                                                              const Model& model,
                                                              const RequestLimits& limits) {
  STRUCTATTN_ASSIGN_OR_RETURN(RequestEnvelope envelope, DecodeEnvelope(request));
  STRUCTATTN_RETURN_IF_ERROR(
      CheckTopLogprobs("output.top_logprobs", request.output().top_logprobs()));
  STRUCTATTN_ASSIGN_OR_RETURN(const SampleCounts counts, DecodeSampleCounts(request));
  if (request.has_fusion()) STRUCTATTN_RETURN_IF_ERROR(CheckFusion(request));
  STRUCTATTN_ASSIGN_OR_RETURN(engine::SamplingParams sampling,
                              DecodeSampling(request.sampling(), model.config.vocab_size));
  STRUCTATTN_ASSIGN_OR_RETURN(engine::StoppingParams stopping,
                              DecodeStopping(request.stopping(), model.config));
  STRUCTATTN_ASSIGN_OR_RETURN(EncodedQuestion question, EncodeQuestion(request, model, limits));
  std::optional<engine::Fusion> fusion;
  if (request.has_fusion()) {
    STRUCTATTN_ASSIGN_OR_RETURN(fusion, DecodeFusion(request.fusion(), question.branches.size()));
  }
  return engine::GenerateRequest{.request_id = request.request_id(),
                                 .prompt = std::move(question.prompt),
                                 .generated_group = request.generated_group(),
                                 .branches = std::move(question.branches),
                                 .samples = counts.samples,
                                 .best_of = counts.best_of,
                                 .fusion = std::move(fusion),
                                 .sampling = std::move(sampling),
                                 .stopping = std::move(stopping),
                                 .cache = std::move(envelope.cache),
                                 .top_logprobs = request.output().top_logprobs(),
                                 .arrival = envelope.arrival,
                                 .deadline = envelope.deadline};
}

absl::StatusOr<engine::EncodedPrompt> DecodeInspectRequest(const v1::InspectRequest& request,
                                                           const Model& model,
                                                           const RequestLimits& limits) {
  STRUCTATTN_ASSIGN_OR_RETURN(const engine::Prompt prompt, DecodePrompt(request.prompt()));
  return engine::EncodePrompt(prompt, std::nullopt, *model.tokenizer, LimitsFor(model, limits));
}

bool IsModelName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxModelNameBytes &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

}  // namespace structattn
