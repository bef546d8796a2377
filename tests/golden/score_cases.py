"""Which continuations of which prompts the score goldens hold, and how the specification joins them.

The joining is written down a second time here, independent of the server: ids =
encode(prompt + continuation), the border at len(encode(prompt)), white space at the prompt's end
moved to the continuation as lm-evaluation-harness does. Needs what reference.py needs; runs no model.
"""

import copy
import dataclasses
import random

import cases
import reference

PRESETS = ("anchored", "shared", "isolated", "causal")
TEXTS = [" Paris", "Paris", " the answer is no", "\n\nQuestion:", "s not", " 42", ", of course",
         " yes.", " \u00fcber alles", " a", " B", " (sic)"]


def golden_path(model):
    return cases.DATA / "scores" / f"{model}.jsonl"


def _continuations(prompt, seed):
    rng = random.Random(seed)
    with_ids = all("token_ids" in segment for segment in prompt["segments"])
    if with_ids and prompt.get("tokenization", "joint") == "joint":
        return [[rng.randrange(5, 90) for _ in range(rng.randint(1, 6))] for _ in range(4)]
    return rng.sample(TEXTS, 4)


def _needs_table(prompt):
    """Explicit groups under a preset, which has none for them."""
    return not isinstance(prompt["rule"], dict) and any("group" in segment
                                                        for segment in prompt["segments"])


def cases_of(model):
    """Contract JSON of `structattn score`, one per case."""
    if model in cases.REAL_MODELS:
        prompts = [{**prompt, "rule": preset, "id": f"{prompt['id']}/{preset}"}
                   for prompt in cases.cases_of(model)[::4] for preset in PRESETS]
    else:
        prompts = cases.cases_of(model)[::3]
    return [{**prompt, "continuations": _continuations(prompt, seed)}
            for seed, prompt in enumerate(prompts) if not _needs_table(prompt)]


@dataclasses.dataclass
class Joined:
    """Prompt and continuation as the model sees them; `encoded` holds the tokens of both."""

    encoded: reference.Encoded
    border: int


def _move_space(prompt):
    """The prompt without white space at its end, and that white space."""
    prompt = copy.deepcopy(prompt)
    moved = ""
    for segment in reversed(prompt["segments"]):
        if "text" not in segment:
            break
        kept = segment["text"].rstrip()
        moved = segment["text"][len(kept):] + moved
        segment["text"] = kept
        if kept:
            break
    return prompt, moved


def join(prompt, continuation, encoder, group=0):
    if isinstance(continuation, list):
        encoded = reference.encode_prompt(prompt, encoder)
        ids = encoded.token_ids + continuation
    else:
        prompt, moved = _move_space(prompt)
        encoded = reference.encode_prompt(prompt, encoder)
        behind = {"type": "answer_cue", "text": moved + continuation}
        if prompt.get("tokenization", "joint") == "joint":
            longer = {**prompt, "segments": prompt["segments"] + [behind]}
            ids = reference.tokenize(longer, encoder)[0]
        else:
            ids = encoded.token_ids + [token_id for token_id, _ in
                                       encoder.encode([behind["text"]], [False])]
    border = len(encoded.token_ids)
    groups = encoded.groups + [group] * (len(ids) - border)
    policy = reference.Positions(prompt.get("positions", "sequential"))
    return Joined(dataclasses.replace(encoded, token_ids=ids, groups=groups,
                                      positions=[policy.next(g) for g in groups]), border)
