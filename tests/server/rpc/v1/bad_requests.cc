// The table of bad_requests.h.
#include "tests/server/rpc/v1/bad_requests.h"

#include <cmath>
#include <limits>

#include "tests/server/rpc/in_process_server.h"

namespace structattn::rpc {
namespace {

using Request = v1::GenerateRequest;
using Cases = std::vector<BadRequestCase>;

v1::Segment* SegmentOf(Request* request, int index) {
  return request->mutable_prompt()->mutable_segments(index);
}

// A table in which group g sees itself, for g below `rows`.
v1::RuleTable* SelfTable(Request* request, int rows) {
  v1::RuleTable* table = request->mutable_prompt()->mutable_rule()->mutable_table();
  for (int group = 0; group < rows; ++group) table->add_visible()->add_groups(group);
  return table;
}

void AddSegmentCases(Cases* cases) {
  cases->push_back({"NoPrompt", [](Request* r) { r->clear_prompt(); }, "segments", "NO_SEGMENTS",
                    "at least one"});
  cases->push_back({"NoSegments", [](Request* r) { r->mutable_prompt()->clear_segments(); },
                    "segments", "NO_SEGMENTS", "at least one"});
  cases->push_back({"EmptyTextEverywhere",
                    [](Request* r) {
                      for (auto& segment : *r->mutable_prompt()->mutable_segments()) {
                        segment.set_text("");
                      }
                    },
                    "segments", "EMPTY_PROMPT", "no segment yields a token"});
  cases->push_back({"ContentMissing", [](Request* r) { SegmentOf(r, 3)->clear_content(); },
                    "segments[3]", "CONTENT_MISSING", "one of text, token_ids"});
  cases->push_back({"TypeUnspecified", [](Request* r) { SegmentOf(r, 0)->clear_type(); },
                    "segments[0].type", "UNKNOWN_ENUM_VALUE", "0 is none of INSTRUCTION"});
  cases->push_back({"TypeUnknown",
                    [](Request* r) { SegmentOf(r, 2)->set_type(v1::SegmentType(99)); },
                    "segments[2].type", "UNKNOWN_ENUM_VALUE", "99 is none of INSTRUCTION"});
  cases->push_back({"IndexOnNonQuestion",
                    [](Request* r) { SegmentOf(r, 0)->set_paraphrase_index(0); },
                    "segments[0].paraphrase_index", "PARAPHRASE_INDEX_NOT_ALLOWED", "question"});
  cases->push_back({"IndexMissing", [](Request* r) { SegmentOf(r, 1)->clear_paraphrase_index(); },
                    "segments[1].paraphrase_index", "PARAPHRASE_INDEX_MISSING", "0..62"});
  cases->push_back({"IndexNegative", [](Request* r) { SegmentOf(r, 1)->set_paraphrase_index(-1); },
                    "segments[1].paraphrase_index", "PARAPHRASE_INDEX_OUT_OF_RANGE", "-1"});
  cases->push_back({"IndexTooLarge", [](Request* r) { SegmentOf(r, 2)->set_paraphrase_index(63); },
                    "segments[2].paraphrase_index", "PARAPHRASE_INDEX_OUT_OF_RANGE",
                    "63 is not in 0..62"});
  cases->push_back({"GroupWithoutTable", [](Request* r) { SegmentOf(r, 2)->set_group(1); },
                    "segments[2].group", "GROUP_WITHOUT_TABLE", "needs a table"});
  cases->push_back({"TokenIdOutOfRange",
                    [](Request* r) {
                      for (auto& segment : *r->mutable_prompt()->mutable_segments()) {
                        segment.mutable_token_ids()->add_ids(1);
                      }
                      SegmentOf(r, 1)->mutable_token_ids()->add_ids(engine::fake::kVocabulary);
                    },
                    "segments[1].token_ids[1]", "TOKEN_ID_OUT_OF_RANGE", "97 is not in 0..96"});
  cases->push_back({"TextAndIdsMixed",
                    [](Request* r) { SegmentOf(r, 1)->mutable_token_ids()->add_ids(1); },
                    "segments[1].token_ids", "MIXED_TEXT_AND_IDS", "per_segment"});
  cases->push_back(
      {"OverContextLength",
       [](Request* r) { SegmentOf(r, 0)->set_text(std::string(kTestContextLength, 'x')); },
       "segments", "PROMPT_TOO_LONG", "context length is 4096"});
  cases->push_back({"FiveMebibytes",
                    [](Request* r) { SegmentOf(r, 0)->set_text(std::string(5 << 20, 'x')); },
                    "segments", "PROMPT_TOO_LARGE", "at most 1048576"});
  cases->push_back({"TooManySegments",
                    [](Request* r) {
                      for (int i = 0; i < 5000; ++i) {
                        *r->mutable_prompt()->add_segments() = r->prompt().segments(0);
                      }
                    },
                    "segments", "TOO_MANY_SEGMENTS", "5004 given"});
}

void AddRuleCases(Cases* cases) {
  cases->push_back(
      {"PresetUnknown",
       [](Request* r) { r->mutable_prompt()->mutable_rule()->set_preset(v1::RulePreset(7)); },
       "rule.preset", "UNKNOWN_ENUM_VALUE", "7 is none of ANCHORED"});
  cases->push_back({"PositionsUnknown",
                    [](Request* r) { r->mutable_prompt()->set_positions(v1::PositionPolicy(9)); },
                    "positions", "UNKNOWN_ENUM_VALUE", "9 is none of SEQUENTIAL"});
  cases->push_back({"TokenizationUnknown",
                    [](Request* r) { r->mutable_prompt()->set_tokenization(v1::Tokenization(9)); },
                    "tokenization", "UNKNOWN_ENUM_VALUE", "9 is none of JOINT"});
  cases->push_back({"GroupNotSelfVisible",
                    [](Request* r) { SelfTable(r, 3)->mutable_visible(2)->clear_groups(); },
                    "rule.table.visible[2]", "GROUP_NOT_SELF_VISIBLE", "does not see itself"});
  cases->push_back({"TableTooSmall", [](Request* r) { SelfTable(r, 2); }, "rule.table.visible",
                    "TABLE_TOO_SMALL", "uses group 2"});
  cases->push_back({"TableEmpty", [](Request* r) { SelfTable(r, 0); }, "rule.table.visible",
                    "TABLE_SIZE_OUT_OF_RANGE", "1..64"});
  cases->push_back({"TableTooLarge", [](Request* r) { SelfTable(r, 65); }, "rule.table.visible",
                    "TABLE_SIZE_OUT_OF_RANGE", "65 rows"});
  cases->push_back({"TableGroupOutOfRange",
                    [](Request* r) { SelfTable(r, 3)->mutable_visible(1)->add_groups(64); },
                    "rule.table.visible[1].groups[1]", "GROUP_OUT_OF_RANGE", "64 is not in 0..63"});
  cases->push_back({"GroupTooLarge",
                    [](Request* r) {
                      SelfTable(r, 3);
                      SegmentOf(r, 0)->set_group(64);
                    },
                    "segments[0].group", "GROUP_OUT_OF_RANGE", "64 is not in 0..63"});
  cases->push_back({"GeneratedGroupTooLarge", [](Request* r) { r->set_generated_group(64); },
                    "generated_group", "GROUP_OUT_OF_RANGE", "0..63"});
  cases->push_back({"GeneratedGroupNegative", [](Request* r) { r->set_generated_group(-1); },
                    "generated_group", "GROUP_OUT_OF_RANGE", "0..63"});
}

// `set` is given each bad value in turn.
void AddFloatCases(Cases* cases, const std::string& field, std::vector<float> bad,
                   const std::function<void(v1::Sampling*, float)>& set) {
  bad.push_back(std::nanf(""));
  bad.push_back(std::numeric_limits<float>::infinity());
  bad.push_back(-std::numeric_limits<float>::infinity());
  for (size_t i = 0; i < bad.size(); ++i) {
    std::string name = field + "_" + std::to_string(i);
    for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
    cases->push_back({name, [=](Request* r) { set(r->mutable_sampling(), bad[i]); },
                      "sampling." + field, "VALUE_OUT_OF_RANGE", "is not in"});
  }
}

void AddSamplingCases(Cases* cases) {
  using S = v1::Sampling;
  AddFloatCases(cases, "temperature", {-0.1f, 101.0f, 1e30f}, &S::set_temperature);
  AddFloatCases(cases, "top_p", {0.0f, -1.0f, 1.5f}, &S::set_top_p);
  AddFloatCases(cases, "min_p", {-0.1f, 1.5f}, &S::set_min_p);
  AddFloatCases(cases, "repetition_penalty", {0.0f, -1.0f, 200.0f}, &S::set_repetition_penalty);
  AddFloatCases(cases, "presence_penalty", {-101.0f, 1e9f}, &S::set_presence_penalty);
  AddFloatCases(cases, "frequency_penalty", {-101.0f, 1e9f}, &S::set_frequency_penalty);
  AddFloatCases(cases, "logit_bias[3]", {-1001.0f, 1e9f},
                [](S* s, float value) { (*s->mutable_logit_bias())[3] = value; });
  cases->push_back({"TopKNegative", [](Request* r) { r->mutable_sampling()->set_top_k(-1); },
                    "sampling.top_k", "VALUE_OUT_OF_RANGE", "-1"});
  cases->push_back({"BiasOfUnknownToken",
                    [](Request* r) { (*r->mutable_sampling()->mutable_logit_bias())[97] = 1; },
                    "sampling.logit_bias[97]", "TOKEN_ID_OUT_OF_RANGE", "0..96"});
  cases->push_back({"BiasOfNegativeToken",
                    [](Request* r) { (*r->mutable_sampling()->mutable_logit_bias())[-5] = 1; },
                    "sampling.logit_bias[-5]", "TOKEN_ID_OUT_OF_RANGE", "0..96"});
  cases->push_back({"TooManyBiases",
                    [](Request* r) {
                      for (int i = 0; i < 1025; ++i) {
                        (*r->mutable_sampling()->mutable_logit_bias())[i] = 1;
                      }
                    },
                    "sampling.logit_bias", "TOO_MANY_ENTRIES", "at most 1024"});
}

void AddStoppingCases(Cases* cases) {
  const auto max_tokens = [](int value) {
    return [value](Request* r) { r->mutable_stopping()->set_max_tokens(value); };
  };
  cases->push_back({"MaxTokensZero", max_tokens(0), "stopping.max_tokens", "VALUE_OUT_OF_RANGE",
                    "0 is not 1 or more"});
  cases->push_back({"MaxTokensNegative", max_tokens(-7), "stopping.max_tokens",
                    "VALUE_OUT_OF_RANGE", "-7 is not 1 or more"});
  cases->push_back({"TenThousandStopStrings",
                    [](Request* r) {
                      for (int i = 0; i < 10'000; ++i) r->mutable_stopping()->add_stop_strings("x");
                    },
                    "stopping.stop_strings", "TOO_MANY_ENTRIES", "10000 entries; at most 64"});
  cases->push_back({"StopStringEmpty",
                    [](Request* r) { r->mutable_stopping()->add_stop_strings(""); },
                    "stopping.stop_strings[0]", "STOP_STRING_LENGTH_OUT_OF_RANGE", "1..1024"});
  cases->push_back({"StopStringTooLong",
                    [](Request* r) {
                      r->mutable_stopping()->add_stop_strings("fine");
                      r->mutable_stopping()->add_stop_strings(std::string(1025, 'x'));
                    },
                    "stopping.stop_strings[1]", "STOP_STRING_LENGTH_OUT_OF_RANGE", "1025 bytes"});
  cases->push_back({"StopIdOutOfRange",
                    [](Request* r) { r->mutable_stopping()->add_stop_token_ids(97); },
                    "stopping.stop_token_ids[0]", "TOKEN_ID_OUT_OF_RANGE", "0..96"});
  cases->push_back({"TooManyStopIds",
                    [](Request* r) {
                      for (int i = 0; i < 1025; ++i) r->mutable_stopping()->add_stop_token_ids(1);
                    },
                    "stopping.stop_token_ids", "TOO_MANY_ENTRIES", "at most 1024"});
}

void AddEnvelopeCases(Cases* cases) {
  cases->push_back({"RequestIdTooLong",
                    [](Request* r) { r->set_request_id(std::string(257, 'x')); }, "request_id",
                    "REQUEST_ID_TOO_LONG", "at most 256"});
  cases->push_back({"CacheSaltTooLong",
                    [](Request* r) { r->mutable_cache()->set_salt(std::string(257, 'x')); },
                    "cache.salt", "CACHE_SALT_TOO_LONG", "257 bytes; at most 256"});
  cases->push_back({"TimeoutNegative", [](Request* r) { r->set_timeout_ms(-1); }, "timeout_ms",
                    "VALUE_OUT_OF_RANGE", "negative"});
  cases->push_back({"TopLogprobsTooMany",
                    [](Request* r) { r->mutable_output()->set_top_logprobs(21); },
                    "output.top_logprobs", "VALUE_OUT_OF_RANGE", "0..20"});
  cases->push_back({"TopLogprobsNegative",
                    [](Request* r) { r->mutable_output()->set_top_logprobs(-1); },
                    "output.top_logprobs", "VALUE_OUT_OF_RANGE", "0..20"});
}

v1::Branch* AddBranch(Request* request, int group, const std::string& cue = "") {
  v1::Branch* branch = request->add_branches();
  branch->set_group(group);
  branch->set_branch_cue(cue);
  return branch;
}

void AddContinuationCases(Cases* cases) {
  cases->push_back({"BranchGroupOutOfRange",
                    [](Request* r) {
                      AddBranch(r, 1);
                      AddBranch(r, 64, "x");
                    },
                    "branches[1].group", "GROUP_OUT_OF_RANGE", "64 is not in 0..63"});
  cases->push_back({"BranchGroupWithoutRow",
                    [](Request* r) {
                      SelfTable(r, 3);
                      AddBranch(r, 5, "x");
                    },
                    "rule.table.visible", "TABLE_TOO_SMALL", "branches[0].group uses group 5"});
  cases->push_back({"BranchWithoutToken", [](Request* r) { AddBranch(r, 7); },
                    "branches[0].branch_cue", "BRANCH_CUE_MISSING", "no token of group 7"});
  cases->push_back({"BranchCueTooLong",
                    [](Request* r) { AddBranch(r, 1, std::string(16385, 'x')); },
                    "branches[0].branch_cue", "BRANCH_CUE_TOO_LONG", "at most 16384"});
  cases->push_back({"BranchPastTheContext",
                    [](Request* r) { AddBranch(r, 1, std::string(kTestContextLength, 'x')); },
                    "branches[0].branch_cue", "PROMPT_TOO_LONG", "context length is 4096"});
  cases->push_back({"BranchesAndGeneratedGroup",
                    [](Request* r) {
                      AddBranch(r, 1);
                      r->set_generated_group(1);
                    },
                    "generated_group", "GROUP_GIVEN_TWICE", "branches"});
  cases->push_back({"TooManyBranches",
                    [](Request* r) {
                      for (int i = 0; i < 65; ++i) AddBranch(r, 1);
                    },
                    "branches", "TOO_MANY_ENTRIES", "at most 64"});
  cases->push_back({"NoSamples", [](Request* r) { r->set_n(0); }, "n", "VALUE_OUT_OF_RANGE",
                    "0 is not in 1..64"});
  cases->push_back({"TooManySamples", [](Request* r) { r->set_n(65); }, "n", "VALUE_OUT_OF_RANGE",
                    "65 is not in 1..64"});
  cases->push_back({"BestOfBelowN",
                    [](Request* r) {
                      r->set_n(4);
                      r->set_best_of(3);
                    },
                    "best_of", "VALUE_OUT_OF_RANGE", "3 is not in 4..64"});
  cases->push_back({"BestOfTooLarge", [](Request* r) { r->set_best_of(65); }, "best_of",
                    "VALUE_OUT_OF_RANGE", "65 is not in 1..64"});
  cases->push_back({"TooManyContinuations",
                    [](Request* r) {
                      for (int i = 0; i < 5; ++i) AddBranch(r, 1);
                      r->set_n(64);
                    },
                    "n", "TOO_MANY_CONTINUATIONS", "are 320; at most 256"});
}

v1::Fusion* FusionOf(Request* request, v1::FusionMethod method = v1::FUSION_METHOD_WEIGHTED_AVG) {
  request->mutable_fusion()->set_method(method);
  return request->mutable_fusion();
}

void AddWeightCases(Cases* cases) {
  const auto weights = [](std::vector<double> values) {
    return [values](Request* r) {
      FusionOf(r)->mutable_weights()->Assign(values.begin(), values.end());
    };
  };
  cases->push_back({"WeightsTooFew", weights({1}), "fusion.weights", "WEIGHTS_MISMATCH",
                    "1 weights for 2 members"});
  cases->push_back({"WeightsTooMany", weights({1, 2, 3}), "fusion.weights", "WEIGHTS_MISMATCH",
                    "3 weights for 2 members"});
  cases->push_back({"WeightNegative", weights({1, -0.5}), "fusion.weights[1]", "VALUE_OUT_OF_RANGE",
                    "-0.5 is not a finite number"});
  cases->push_back({"WeightNan", weights({std::nan(""), 1}), "fusion.weights[0]",
                    "VALUE_OUT_OF_RANGE", "finite"});
  cases->push_back({"WeightInfinite", weights({1, std::numeric_limits<double>::infinity()}),
                    "fusion.weights[1]", "VALUE_OUT_OF_RANGE", "finite"});
  cases->push_back({"WeightsAllZero", weights({0, 0}), "fusion.weights", "WEIGHTS_ALL_ZERO",
                    "at least one must be more"});
  cases->push_back({"WeightsMissing", [](Request* r) { FusionOf(r); }, "fusion.weights",
                    "WEIGHTS_MISSING", "or fusion.confidence"});
  cases->push_back({"WeightsOfPlainAvg",
                    [](Request* r) { FusionOf(r, v1::FUSION_METHOD_AVG)->add_weights(1); },
                    "fusion.weights", "WEIGHTS_NOT_ALLOWED", "only WEIGHTED_AVG"});
  cases->push_back({"ConfidenceOfPlainMax",
                    [](Request* r) { FusionOf(r, v1::FUSION_METHOD_MAX)->mutable_confidence(); },
                    "fusion.confidence", "WEIGHTS_NOT_ALLOWED", "only WEIGHTED_AVG"});
  cases->push_back({"WeightsAndConfidence",
                    [](Request* r) {
                      FusionOf(r)->add_weights(1);
                      r->mutable_fusion()->mutable_confidence();
                    },
                    "fusion.confidence", "WEIGHTS_GIVEN_TWICE", "beside fusion.weights"});
  cases->push_back({"ConfidenceWithoutSamples",
                    [](Request* r) { FusionOf(r)->mutable_confidence()->set_samples(0); },
                    "fusion.confidence.samples", "VALUE_OUT_OF_RANGE", "0 is not in 1..64"});
  cases->push_back({"ConfidenceWithTooManySamples",
                    [](Request* r) { FusionOf(r)->mutable_confidence()->set_samples(65); },
                    "fusion.confidence.samples", "VALUE_OUT_OF_RANGE", "65 is not in 1..64"});
  cases->push_back({"ConfidenceCold",
                    [](Request* r) { FusionOf(r)->mutable_confidence()->set_temperature(0.0f); },
                    "fusion.confidence.temperature", "VALUE_OUT_OF_RANGE", "0 is not in (0, 100]"});
}

void AddFusionCases(Cases* cases) {
  cases->push_back({"FusionWithoutMethod", [](Request* r) { r->mutable_fusion(); }, "fusion.method",
                    "UNKNOWN_ENUM_VALUE", "0 is none of AVG"});
  cases->push_back({"FusionMethodUnknown", [](Request* r) { FusionOf(r, v1::FusionMethod(9)); },
                    "fusion.method", "UNKNOWN_ENUM_VALUE", "9 is none of AVG"});
  cases->push_back(
      {"FusionSourceUnknown",
       [](Request* r) { FusionOf(r, v1::FUSION_METHOD_AVG)->set_source(v1::FusionSource(5)); },
       "fusion.source", "UNKNOWN_ENUM_VALUE", "5 is none of PER_PARAPHRASE_PROMPTS"});
  cases->push_back({"FusionOfSamples",
                    [](Request* r) {
                      FusionOf(r, v1::FUSION_METHOD_AVG);
                      r->set_n(2);
                    },
                    "n", "FUSION_OF_SAMPLES", "one answer"});
  cases->push_back({"FusionOfTheBest",
                    [](Request* r) {
                      FusionOf(r, v1::FUSION_METHOD_AVG);
                      r->set_best_of(2);
                    },
                    "best_of", "FUSION_OF_SAMPLES", "one answer"});
  cases->push_back({"FusionInAGroup",
                    [](Request* r) {
                      FusionOf(r, v1::FUSION_METHOD_AVG);
                      r->set_generated_group(1);
                    },
                    "generated_group", "GROUP_GIVEN_TWICE", "beside fusion"});
  cases->push_back({"PerParaphrasePromptsAndBranches",
                    [](Request* r) {
                      FusionOf(r, v1::FUSION_METHOD_AVG);
                      AddBranch(r, 1);
                    },
                    "branches", "FUSION_SOURCE_MISMATCH", "branches need BRANCHES"});
  cases->push_back({"FusionOfNoBranches",
                    [](Request* r) {
                      FusionOf(r, v1::FUSION_METHOD_AVG)->set_source(v1::FUSION_SOURCE_BRANCHES);
                    },
                    "branches", "FUSION_SOURCE_MISMATCH", "at least one is needed"});
  cases->push_back({"FusionOfTooManyBranches",
                    [](Request* r) {
                      FusionOf(r, v1::FUSION_METHOD_AVG)->set_source(v1::FUSION_SOURCE_BRANCHES);
                      for (int i = 0; i < 64; ++i) AddBranch(r, 1);
                    },
                    "branches", "TOO_MANY_ENTRIES", "at most 63"});
  cases->push_back({"ConfidenceOfTooManyContinuations",
                    [](Request* r) {
                      FusionOf(r)->set_source(v1::FUSION_SOURCE_BRANCHES);
                      r->mutable_fusion()->mutable_confidence()->set_samples(64);
                      for (int i = 0; i < 4; ++i) AddBranch(r, 1);
                    },
                    "fusion.confidence.samples", "TOO_MANY_CONTINUATIONS", "are 260"});
  cases->push_back({"FusionWithoutParaphrase",
                    [](Request* r) {
                      FusionOf(r, v1::FUSION_METHOD_AVG);
                      for (auto& segment : *r->mutable_prompt()->mutable_segments()) {
                        segment.set_type(v1::SEGMENT_TYPE_CONTEXT);
                        segment.clear_paraphrase_index();
                      }
                    },
                    "segments", "NO_PARAPHRASE", "needs one"});
}

}  // namespace

std::vector<BadRequestCase> BadRequestCases() {
  Cases cases;
  AddSegmentCases(&cases);
  AddRuleCases(&cases);
  AddSamplingCases(&cases);
  AddStoppingCases(&cases);
  AddEnvelopeCases(&cases);
  AddContinuationCases(&cases);
  AddWeightCases(&cases);
  AddFusionCases(&cases);
  return cases;
}

}  // namespace structattn::rpc
