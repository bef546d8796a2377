// What answers must be, straight from the definition: every token by recomputing the whole
// sequence. Implements the Expected functions of fakes.h.
#include <algorithm>
#include <cstdlib>
#include <span>
#include <utility>

#include "server/engine/sampling/fused_distribution.h"
#include "server/engine/sampling/sampler.h"
#include "server/engine/sampling/score_logits.h"
#include "tests/server/engine/fakes.h"

namespace structattn::engine::fake {
namespace {

// One sequence that goes on behind the prompt, recomputed as a whole for every token.
struct ReferenceBranch {
  std::vector<int32_t> ids;
  Structure structure;
  int32_t group;
  int32_t row;  // Predicts the next token.
  std::vector<int32_t> given;

  ReferenceBranch(const GenerateRequest& request, const Branch& branch)
      : ids(request.prompt.token_ids),
        structure(request.prompt.structure),
        group(branch.group),
        row(branch.predicted_from) {
    for (int32_t i = 0; i < structure.size(); ++i) {
      if (!branch.per_paraphrase_prompt || MaySee(structure, row, i)) given.push_back(ids[i]);
    }
    for (const int32_t id : branch.cue) Append(id);
    given.insert(given.end(), branch.cue.begin(), branch.cue.end());
  }
  void Append(int32_t id) {
    ids.push_back(id);
    structure.Append(group);
    row = structure.size() - 1;
  }
  std::vector<float> Logits() const { return ReferenceLogits(ids, structure, row); }
};

std::vector<Branch> BranchesOf(const GenerateRequest& request) {
  if (!request.branches.empty()) return request.branches;
  return {{.group = request.generated_group,
           .cue = {},
           .predicted_from = request.prompt.structure.size() - 1}};
}

// Takes in a token; false when it ends the answer.
bool TakeToken(const StoppingParams& stopping, int32_t id, Expected* expected) {
  expected->token_ids.push_back(id);
  if (id == kEosId && !stopping.ignore_eos) {
    expected->reason = FinishReason::kStop;
    return false;
  }
  if (std::ranges::count(stopping.stop_token_ids, id) > 0) {
    expected->reason = FinishReason::kStopToken;
    return false;
  }
  expected->text += FakeTokenizer().TokenBytes(id);
  size_t cut = std::string::npos;
  for (const std::string& stop : stopping.stop_strings) {
    cut = std::min(cut, expected->text.find(stop));
  }
  if (cut == std::string::npos) return true;
  expected->text.resize(cut);
  expected->reason = FinishReason::kStopString;
  return false;
}

// All branches in lock-step; without weights there is one.
Expected Continue(const GenerateRequest& request, int32_t sample, int64_t context_length,
                  std::vector<ReferenceBranch> branches, const std::vector<double>& weights) {
  Expected expected;
  Sampler sampler;
  TokenHistory history(request.sampling, branches[0].given);
  size_t longest = 0;
  for (const ReferenceBranch& branch : branches) {
    history.AddGiven(branch.given);
    longest = std::max(longest, branch.given.size());
  }
  const size_t room = std::max<int64_t>(context_length - static_cast<int64_t>(longest), 0);
  const size_t most = std::min<size_t>(request.stopping.max_tokens, room);
  bool goes_on = true;
  while (goes_on && expected.token_ids.size() < most) {
    const auto method = request.fusion.value_or(Fusion()).method;
    FusedDistribution fused(method, static_cast<int32_t>(branches.size()));
    std::vector<float> scores = branches[0].Logits();
    if (!weights.empty()) {
      for (size_t i = 0; i < branches.size(); ++i) {
        if (!fused.Take(static_cast<int32_t>(i), branches[i].Logits()).ok()) std::abort();
      }
      const std::span<const float> row = fused.Fuse(weights);
      scores.assign(row.begin(), row.end());
    }
    const SampledToken token =
        *sampler.Sample({.logits = scores,
                         .params = &request.sampling,
                         .history = &history,
                         .draw = {request.sampling.seed, static_cast<uint32_t>(sample),
                                  static_cast<uint32_t>(expected.token_ids.size())}});
    expected.logprobs.push_back(token.logprob);
    if (!weights.empty()) {
      expected.member_logprobs.push_back(fused.MemberLogprobs(token.token_id));
    }
    for (ReferenceBranch& branch : branches) branch.Append(token.token_id);
    history.AddGenerated(token.token_id);
    goes_on = TakeToken(request.stopping, token.token_id, &expected);
  }
  return expected;
}

}  // namespace

Expected ExpectedResult(const GenerateRequest& request, int64_t context_length, int32_t branch,
                        int32_t sample) {
  return Continue(request, sample, context_length,
                  {ReferenceBranch(request, BranchesOf(request)[branch])}, {});
}

Expected ExpectedFusion(const GenerateRequest& request, int64_t context_length,
                        const std::vector<double>& weights) {
  std::vector<ReferenceBranch> branches;
  for (const Branch& branch : request.branches) branches.emplace_back(request, branch);
  return Continue(request, /*sample=*/0, context_length, std::move(branches), weights);
}

ExpectedScores ExpectedScoresOf(const ScoredPrompt& scored) {
  const auto append = [](const std::vector<float>& logits, int32_t id, TokenScores* scores) {
    const auto row = ScoredRow::Make(logits);
    scores->logprobs.push_back(row->Logprob(id));
    int32_t rank = 1;
    for (int32_t other = 0; other < kVocabulary; ++other) {
      rank += logits[other] > logits[id] || (logits[other] == logits[id] && other < id);
    }
    scores->ranks.push_back(rank);
  };
  ExpectedScores expected;
  const EncodedPrompt& prompt = scored.prompt;
  for (int32_t i = scored.prompt_logprobs_begin.value_or(prompt.structure.size());
       i < prompt.structure.size(); ++i) {
    append(ReferenceLogits(prompt.token_ids, prompt.structure, i - 1), prompt.token_ids[i],
           &expected.prompt_logprobs);
  }
  for (const std::vector<int32_t>& continuation : scored.continuations) {
    std::vector<int32_t> ids = prompt.token_ids;
    Structure structure = prompt.structure;
    TokenScores& scores = expected.continuations.emplace_back();
    for (const int32_t id : continuation) {
      append(ReferenceLogits(ids, structure, structure.size() - 1), id, &scores);
      ids.push_back(id);
      structure.Append(scored.group);
    }
  }
  return expected;
}

}  // namespace structattn::engine::fake
