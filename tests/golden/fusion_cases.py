"""Which prompts are answered by fusion in the goldens, and how the specification fuses.

The four methods are written down here a second time, independent of the server, in double
precision. Needs numpy; runs no model.
"""

import math

import numpy as np

import cases
import make_models

METHODS = ("avg", "max", "weighted_avg", "weighted_max")
NEW_TOKENS = 8


def golden_path(model):
    return cases.DATA / "fusion" / f"{model}.jsonl"


def models():
    return [*list(make_models.MODELS)[:2], *cases.REAL_MODELS]


def groups_of(prompt):
    """The paraphrases, in order."""
    return sorted({segment["paraphrase_index"] for segment in prompt["segments"]
                   if segment["type"] == "question"})


def paraphrase_prompt(prompt, paraphrase):
    """The paraphrase alone: a plain causal prompt."""
    segments = [segment for segment in prompt["segments"]
                if segment.get("paraphrase_index", paraphrase) == paraphrase]
    return {**prompt, "segments": segments, "rule": "causal", "positions": "sequential"}


def weights_of(method, members):
    """Uneven ones, the last 0, where the method has weights; else all the same."""
    if not method.startswith("weighted"):
        return [1.0 / members] * members
    weights = [1.0 / (1 + member) for member in range(members)]
    if members > 1:
        weights[-1] = 0.0
    return [weight / sum(weights) for weight in weights]


def fuse(method, logprobs, weights):
    """Log-probabilities [vocabulary] from those of the members [members, vocabulary]."""
    parts = np.exp(logprobs) * np.asarray(weights)[:, None]
    fused = parts.sum(axis=0) if method.endswith("avg") else parts.max(axis=0)
    with np.errstate(divide="ignore"):
        return np.log(fused) - math.log(fused.sum())


def cases_of(model):
    """(prompt, method): contract JSON of a prompt, and how it is fused."""
    if model in cases.REAL_MODELS:
        prompts = cases.cases_of(model)[::16]
    else:
        prompts = [prompt for prompt in cases.read_jsonl(cases.HERE / "prompts" / "small.jsonl")
                   if not any("token_ids" in segment or "group" in segment
                              for segment in prompt["segments"])]
    return [({**prompt, "id": f"{prompt['id']}/{method}"}, method)
            for prompt in prompts for method in METHODS]
