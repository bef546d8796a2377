// Implements branches.h.
#include "server/engine/prompt/branches.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"
#include "server/model/status_macros.h"

namespace structattn::engine {
namespace {

// The prompt's last token of each group.
int32_t LastTokenOf(int32_t group, const Structure& structure) {
  for (auto run = structure.runs().rbegin(); run != structure.runs().rend(); ++run) {
    if (run->group == group) return run->end - 1;
  }
  return -1;
}

}  // namespace

absl::StatusOr<std::vector<Branch>> EncodeBranches(std::span<const BranchText> texts,
                                                   const EncodedPrompt& prompt,
                                                   const Tokenizer& tokenizer,
                                                   const PromptLimits& limits) {
  std::vector<Branch> branches;
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string field = absl::StrCat("branches[", i, "]");
    const int32_t group = texts[i].group;
    STRUCTATTN_RETURN_IF_ERROR(
        CheckNamedGroup(absl::StrCat(field, ".group"), group, prompt.structure.rule()));
    const TextSegment cue = {.text = texts[i].cue, .parse_special = texts[i].parse_special};
    STRUCTATTN_ASSIGN_OR_RETURN(std::vector<int32_t> ids, EncodeText(cue, tokenizer, limits.stop));
    STRUCTATTN_RETURN_IF_ERROR(
        CheckEmbeddedIds(absl::StrCat(field, ".cue"), ids, tokenizer, limits.vocabulary_size));
    Branch branch{.group = group,
                  .cue = std::move(ids),
                  .predicted_from = LastTokenOf(group, prompt.structure)};
    if (branch.cue.empty() && branch.predicted_from < 0) {
      return InvalidField(absl::StrCat(field, ".cue"), "BRANCH_CUE_MISSING",
                          absl::StrCat("empty, but the prompt has no token of group ", group,
                                       " from which the first one could be predicted"));
    }
    const int64_t given = prompt.structure.size() + static_cast<int64_t>(branch.cue.size());
    if (given > limits.context_length) {
      return InvalidField(
          absl::StrCat(field, ".cue"), "PROMPT_TOO_LONG",
          absl::StrCat(branch.cue.size(), " tokens behind ", prompt.structure.size(),
                       " of the prompt; the model's context length is ", limits.context_length));
    }
    branches.push_back(std::move(branch));
  }
  return branches;
}

}  // namespace structattn::engine
