"""Which continuations of which prompts the score goldens hold, and how the specification joins them.

The joining is written down a second time here, independent of the server: ids =
encode(prompt + continuation), the border at len(encode(prompt)), white space at the prompt's end
moved to the continuation as lm-evaluation-harness does. Needs what reference.py needs; runs no model.
"""

import copy
import dataclasses
import json
import random

import cases
import make_models
import reference

PRESETS = ("anchored", "shared", "isolated", "causal")
TEXTS = [" Paris", "Paris", " the answer is no", "\n\nQuestion:", "s not", " 42", ", of course",
         " yes.", " \u00fcber alles", " a", " B", " (sic)"]


KINDS_MODELS = ("llama2-gqa1-d64", "smollm2-gqa3-d64-tied", "llama31-gqa4-d64", "qwen3-gqa3-d128")


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


def empty_prompt_token(model):
    """BOS, or EOS where there is none: lm-evaluation-harness's prefix token."""
    tokenizer = make_models.shape_of(model)["tokenizer"]
    with open(make_models.TOKENIZERS / tokenizer / "tokenizer.json", encoding="utf-8") as file:
        added = {entry["content"]: entry["id"] for entry in json.load(file)["added_tokens"]}
    bos, eos = make_models.BOS_AND_EOS[tokenizer]
    return added[bos or eos]


def _kinds(model):
    """Kinds of input that were wrong or refused once, a case each."""
    bos, eos = make_models.BOS_AND_EOS[make_models.shape_of(model)["tokenizer"]]

    def case(kind, texts, continuations, **fields):
        segments = [{"type": "instruction", "text": texts[0]},
                    *({"type": "question", "paraphrase_index": index, "text": text}
                      for index, text in enumerate(texts[1:-1])),
                    {"type": "answer_cue", "text": texts[-1]}]
        return {"rule": "anchored", "segments": segments, "continuations": continuations,
                "id": f"kind/{kind}", **fields}

    plain = ["Answer. ", "Who is it? ", "What is its name? ", "It is"]
    specials = [" no", f" no{eos}", {"text": f" no{eos}", "parse_special": True},
                {"text": f"{eos}\nNo", "parse_special": True}]
    result = [case("special continuations", plain, specials),
              case("special continuations alone", plain, specials, tokenization="per_segment"),
              case("no special tokens", plain, [" no", " yes"], add_special_tokens=False),
              case("empty prompt", ["", ""], [" Paris", "Paris", f"{eos}Paris", specials[2]]),
              case("empty prompt of spaces", ["", " "], ["Paris"], tokenization="per_segment"),
              case("empty prompt, no special tokens", ["", ""], [" Paris"],
                   add_special_tokens=False)]
    if model == KINDS_MODELS[0]:  # It takes a while.
        dice = random.Random(1)
        ids = [dice.randrange(5, 256) for _ in range(make_models.shape_of(model)["context"])]
        result.append({"id": "kind/full context", "rule": "causal", "continuations": [[7], [9]],
                       "segments": [{"type": "context", "token_ids": ids}]})
    if bos is not None:
        for tokenization in ("joint", "per_segment"):
            twice = case(f"begins with BOS/{tokenization}", [bos + plain[0], *plain[1:]],
                         [" no", " yes"], tokenization=tokenization)
            twice["segments"][0]["parse_special"] = True
            result.append(twice)
    return result


def cases_of(model):
    """Contract JSON of `structattn score`, one per case."""
    return _prompts_of(model) + (_kinds(model) if model in KINDS_MODELS else [])


def _prompts_of(model):
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


def join(prompt, continuation, encoder, empty_token=None, group=0):
    """empty_token: what stands for a prompt without a token of its own and without special ones."""
    with_ids = isinstance(continuation, list)
    behind = {"type": "answer_cue"}
    if not with_ids:
        behind.update(continuation if isinstance(continuation, dict) else {"text": continuation})
        prompt, moved = _move_space(prompt)
        behind["text"] = moved + behind["text"]
    encoded = reference.encode_prompt(prompt, encoder)
    if not encoded.token_ids:
        encoded = reference.Encoded([empty_token], [reference.NO_SEGMENT], [0], [0], encoded.visible)
    added = encoded.segments.count(reference.NO_SEGMENT)
    if with_ids:
        ids = encoded.token_ids + continuation
    elif prompt.get("tokenization", "joint") == "joint":
        longer = {**prompt, "segments": prompt["segments"] + [behind], "add_special_tokens": False}
        ids = encoded.token_ids[:added] + reference.tokenize(longer, encoder)[0]
    else:
        own = encoder.encode([behind["text"]], [behind.get("parse_special", False)])
        ids = encoded.token_ids + [token_id for token_id, _ in own]
    border = len(encoded.token_ids)
    groups = encoded.groups + [group] * (len(ids) - border)
    policy = reference.Positions(prompt.get("positions", "sequential"))
    return Joined(dataclasses.replace(encoded, token_ids=ids, groups=groups,
                                      positions=[policy.next(g) for g in groups]), border)
