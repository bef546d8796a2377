"""Holds two builds to each other, bit for bit: tokens and log-probabilities of prompts under every
preset, with both kinds of positions, and scores of continuations.

Run by hand after a change that must not change an answer:
    compare_builds.py --old BIN --new BIN --model PATH [--dtype bfloat16] [--prompts FILE.jsonl]
BIN is a build's folder of binaries. Prints one line per setting and ends with `N passed, N failed`.
"""

import argparse
import json
import pathlib
import sys
import tempfile

import cases
from parity import run_lines
from serving import serving

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PRESETS = ("anchored", "shared", "isolated", "causal")
MODEL = "m"


def prepared(prompt):
    """The setting decides the rule and the positions. A preset takes no explicit groups: a question
    with one becomes that group's paraphrase."""
    segments = []
    for segment in prompt["segments"]:
        group = segment.get("group")
        segment = {key: value for key, value in segment.items() if key != "group"}
        if segment["type"] == "question" and group is not None:
            segment["paraphrase_index"] = max(group - 1, 0)
        segments.append(segment)
    return {"id": prompt["id"], "segments": segments,
            "tokenization": prompt.get("tokenization", "joint")}


def answers(binaries, address, prompts, preset, positions):
    flags = ["--server", address, "--model", MODEL, "--rule", preset, "--positions", positions,
             "--concurrency", "8", "--ignore-eos", "--max-tokens", "16", "--logprobs", "2"]
    results = run_lines(binaries, "batch", prompts, flags)
    return [(result["token_ids"], result["logprobs"], result.get("top_logprobs"))
            for result in results]


def scores(binaries, address, prompts, preset, positions):
    lines = [{**prompt, "continuations": [" Paris", " Rome", " the"]} for prompt in prompts[:16]]
    flags = ["--server", address, "--model", MODEL, "--rule", preset, "--positions", positions,
             "--concurrency", "8"]
    return [result["scores"] for result in run_lines(binaries, "score", lines, flags)]


def ask(binaries, options, prompts):
    """{setting: answers} of one build."""
    given = {}
    with tempfile.TemporaryDirectory() as folder, \
            serving(binaries, {MODEL: options.model}, f"{folder}/log",
                    options.dtype) as address:
        for preset in PRESETS:
            for positions in ("sequential", "aligned"):
                given[f"{preset} {positions}"] = answers(binaries, address, prompts, preset,
                                                         positions)
                given[f"{preset} {positions} scores"] = scores(binaries, address, prompts, preset,
                                                               positions)
    return given


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=pathlib.Path, required=True)
    parser.add_argument("--new", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--prompts", type=pathlib.Path,
                        default=ROOT / "tests/golden/prompts/real.jsonl")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    prompts = [prepared(prompt) for prompt in cases.read_jsonl(options.prompts)][:options.count]
    old, new = (ask(binaries, options, prompts) for binaries in (options.old, options.new))
    passed = 0
    for setting, expected in old.items():
        same = bool(expected) and json.dumps(expected) == json.dumps(new[setting])
        passed += same
        print(f"{setting}: {len(expected)} answers {'equal' if same else 'DIFFER'}")
    print(f"{passed} passed, {len(old) - passed} failed")
    return 0 if passed == len(old) else 1


if __name__ == "__main__":
    sys.exit(main())
