// The plain causal prompts of a prompt's paraphrases, each on its own, packed into one: what they
// begin with alike once, then what each has for itself, as groups that do not see each other. Pure:
// runs no model.
#ifndef STRUCTATTN_SERVER_ENGINE_PROMPT_PER_PARAPHRASE_PROMPTS_H_
#define STRUCTATTN_SERVER_ENGINE_PROMPT_PER_PARAPHRASE_PROMPTS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/prompt/branches.h"
#include "server/engine/prompt/prompt.h"

namespace structattn::engine {

struct PerParaphrasePrompts {
  EncodedPrompt prompt;
  std::vector<Branch> members;  // By group: one for each that a question has.
};

// A per-paraphrase prompt is what is left of the segments without the questions of the others,
// encoded by itself, all of it visible by causality alone; the prompt's rule and positions do not
// count. In the packed prompt the tokens that all per-paraphrase prompts begin with are of group 0,
// the others of the paraphrase's group, under SHARED with ALIGNED positions: there every token sees
// just the tokens that it sees in its per-paraphrase prompt, at the same positions, in the same
// order, so its keys, values and logits are the same bits. The prompt has passed CheckPrompt.
// Errors are those of EncodePrompt and: no question with a group of its own, too much text in all.
absl::StatusOr<PerParaphrasePrompts> EncodePerParaphrasePrompts(const Prompt& prompt,
                                                                const Tokenizer& tokenizer,
                                                                const PromptLimits& limits);

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_PROMPT_PER_PARAPHRASE_PROMPTS_H_
