"""Which prompts each model of the parity test answers, and the golden file's form.

It is the one place that gives prompts their ids: goldens, tests and the comparison mean the same
prompt by the same id. Standard library only; runs no model.
"""

import json
import pathlib

import make_models

HERE = pathlib.Path(__file__).parent
DATA = HERE / "data"
REAL_MODELS = ("smollm2", "qwen2.5-0.5b")
NEW_TOKENS = 16
RULES = ("anchored", "shared", "isolated", "causal", "table")
WAYS = (("sequential", "joint"), ("aligned", "joint"), ("sequential", "per_segment"),
        ("aligned", "per_segment"))


def read_jsonl(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def _with_rule(prompt, rule):
    """The prompt under a preset (explicit groups go), or under its own table."""
    if rule == "table":
        return dict(prompt)
    segments = [{key: value for key, value in segment.items() if key != "group"}
                for segment in prompt["segments"]]
    return {**prompt, "segments": segments, "rule": rule}


def _small_cases(model):
    """Every prompt under every rule; positions and tokenization turn with all three, so that
    each model sees each of the 20 combinations on several prompts."""
    turn = make_models.shape_of(model)["turn"]
    if turn is None:
        turn = list(make_models.MODELS).index(model)
    cases = []
    for number, prompt in enumerate(read_jsonl(HERE / "prompts" / "small.jsonl")):
        with_ids = ["token_ids" in segment for segment in prompt["segments"]]
        mixed = any(with_ids) and not all(with_ids)
        for place, rule in enumerate(RULES):
            positions, tokenization = WAYS[(number + place + turn) % len(WAYS)]
            if mixed:
                tokenization = "per_segment"
            name = f"{prompt['id']}/{rule}/{positions}/{tokenization}"
            cases.append({**_with_rule(prompt, rule), "id": name, "positions": positions,
                          "tokenization": tokenization})
    return cases


def cases_of(model):
    """The prompts (contract JSON, one per case) that `model` answers."""
    if model in REAL_MODELS:
        return read_jsonl(HERE / "prompts" / "real.jsonl")
    return _small_cases(model)


def golden_path(model):
    return DATA / f"{model}.jsonl"


def run_lengths(values):
    """[5, 5, 7] -> [[5, 2], [7, 1]]."""
    runs = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1][1] += 1
        else:
            runs.append([value, 1])
    return runs


def expand_runs(runs):
    return [value for value, count in runs for _ in range(count)]


def ramps(values):
    """[0, 1, 2, 1] -> [[0, 3], [1, 1]]: first value and length of each run of successors."""
    result = []
    for value in values:
        if result and result[-1][0] + result[-1][1] == value:
            result[-1][1] += 1
        else:
            result.append([value, 1])
    return result


def expand_ramps(runs):
    return [first + step for first, count in runs for step in range(count)]
