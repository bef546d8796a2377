// Log-probabilities of given tokens, each after the given ones before it ("teacher forcing"), as
// the decoder computes them: forced_logprobs MODEL DTYPE [THREADS] < requests > answers, a JSON
// object a line. Run by bf16_exactness.py. Goes around server and engine: one sequence, one step.
//   request: {"token_ids": [..], "groups": [..], "prompt_tokens": N, "positions":
//   "sequential|aligned",
//             "rule": "anchored|shared|isolated|causal" or {"visible": [[..], ..]}}
//   answer:  {"logprobs": [..] of the tokens from N on, "position_ids": [..] of the prompt}
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "server/model/model.h"

namespace structattn {
namespace {

using Json = nlohmann::json;
constexpr int32_t kBlockSize = 32;

[[noreturn]] void Fail(const std::string& message) {
  std::fprintf(stderr, "forced_logprobs: %s\n", message.c_str());
  std::exit(1);
}

RuleTable ParseRule(const Json& rule) {
  static const std::map<std::string, RulePreset> presets = {{"anchored", RulePreset::kAnchored},
                                                            {"shared", RulePreset::kShared},
                                                            {"isolated", RulePreset::kIsolated},
                                                            {"causal", RulePreset::kCausal}};
  if (rule.is_string()) return RuleTable::Preset(presets.at(rule.get<std::string>()));
  RuleTable table;
  for (const Json& row : rule.at("visible")) {
    for (const int group : row) table.visible[table.rows] |= uint64_t{1} << group;
    ++table.rows;
  }
  return table;
}

struct Sequence {
  std::vector<int32_t> token_ids;
  Structure structure;
  int32_t prompt_tokens;
};

Sequence ParseRequest(const Json& request) {
  const bool aligned = request.at("positions") == "aligned";
  Sequence sequence = {request.at("token_ids"),
                       Structure(ParseRule(request.at("rule")),
                                 aligned ? PositionPolicy::kAligned : PositionPolicy::kSequential),
                       request.at("prompt_tokens")};
  for (const int group : request.at("groups")) sequence.structure.Append(group);
  return sequence;
}

// All tokens but the last in one step; logits of the rows from the last prompt token on.
StepBatch MakeBatch(const Sequence& sequence, const Decoder& decoder) {
  StepBatch batch;
  const int32_t tokens = sequence.structure.size() - 1;
  batch.token_ids.assign(sequence.token_ids.begin(), sequence.token_ids.begin() + tokens);
  const std::span<const int32_t> positions = sequence.structure.positions();
  batch.positions.assign(positions.begin(), positions.begin() + tokens);
  batch.block_table_stride = (tokens + kBlockSize - 1) / kBlockSize;
  for (int32_t b = 0; b < batch.block_table_stride; ++b) batch.block_tables.push_back(b);
  for (int32_t i = 0; i < tokens; ++i) batch.slots.push_back(i);
  for (int32_t i = sequence.prompt_tokens - 1; i < tokens; ++i) batch.logit_rows.push_back(i);
  VisibleIntervals visible;
  visible.Extend(sequence.structure);
  SequenceQueries queries = {.structure = &sequence.structure,
                             .intervals = &visible,
                             .sequence = 0,
                             .row_begin = 0,
                             .query_begin = 0,
                             .query_end = tokens};
  AppendTiles(queries, kCpuTileRows, &batch.work);
  queries.window = decoder.tiling().window;
  AppendTiles(queries, kCpuTileRows, &batch.windowed_work);
  const int32_t length = 1 + std::ranges::max(positions.first(sequence.prompt_tokens));
  if (length > decoder.dynamic_rope_length()) batch.rope_lengths.assign(tokens, length);
  return batch;
}

double LogProbability(std::span<const float> logits, int32_t token) {
  double largest = logits[0];
  for (const float logit : logits) largest = std::max<double>(largest, logit);
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return logits[token] - largest - std::log(sum);
}

Json Answer(const Sequence& sequence, const KvShape& kv, Decoder& decoder) {
  const StepBatch batch = MakeBatch(sequence, decoder);
  const size_t vocabulary = decoder.vocabulary_size();
  std::vector<float> logits(batch.logit_rows.size() * vocabulary);
  if (batch.tokens() > kv.capacity_tokens()) Fail("a prompt is longer than the KV memory");
  decoder.Forward(batch, logits);
  Json logprobs = Json::array();
  for (size_t row = 0; row < batch.logit_rows.size(); ++row) {
    logprobs.push_back(
        LogProbability(std::span(logits).subspan(row * vocabulary, vocabulary),
                       sequence.token_ids[sequence.prompt_tokens + static_cast<int32_t>(row)]));
  }
  const std::span<const int32_t> positions = sequence.structure.positions();
  return {{"logprobs", logprobs},
          {"position_ids",
           std::vector<int32_t>(positions.begin(), positions.begin() + sequence.prompt_tokens)}};
}

int Main(int argc, char** argv) {
  static const std::map<std::string, DType> dtypes = {
      {"float32", DType::kFloat32}, {"bfloat16", DType::kBfloat16}, {"float16", DType::kFloat16}};
  if (argc < 3 || !dtypes.contains(argv[2])) Fail("MODEL DTYPE [THREADS]");
  const LoadOptions options = {.dtype = dtypes.at(argv[2]),
                               .device = Device{},
                               .threads = argc > 3 ? std::max(1, std::atoi(argv[3])) : 1,
                               .progress = {}};
  const auto model = LoadModel(argv[1], options);
  if (!model.ok()) Fail(std::string(model.status().message()));
  const auto kv = (*model)->decoder->AllocateKv(int64_t{1} << 30, kBlockSize);
  if (!kv.ok()) Fail(std::string(kv.status().message()));
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << Answer(ParseRequest(Json::parse(line)), *kv, *(*model)->decoder) << "\n";
  }
  return 0;
}

}  // namespace
}  // namespace structattn

int main(int argc, char** argv) { return structattn::Main(argc, argv); }
