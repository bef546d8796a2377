"""What many answers of one prompt cost, in units of one: six branches, and sixteen samples.

Run by hand: many_answers.py --model smollm2 --models-dir DIR [--prompts N] [--rounds N]
Times are the server's own (queue + prefill + decode), the cache is bypassed, so every request pays
for its prompt; the kinds are interleaved, prompt by prompt. Branches are checked first: each must be
the same request alone in its group, sample 0 the plain one. Standard library only.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
sys.path.insert(0, str(GOLDEN))

import evaluation_prompts  # noqa: E402  (the path comes first)
import parity  # noqa: E402

NEW_TOKENS = 16
GROUPS = list(range(1, evaluation_prompts.PARAPHRASES + 1))
SAMPLES = 16
BARS = {"six branches": 1.5, "sixteen samples": 2.5}


def ask(binaries, address, prompt, *flags):
    """The result object of one `structattn generate`."""
    done = subprocess.run([binaries / "structattn", "generate", "--prompt", "-", "--json",
                           "--server", address, "--no-cache", "--ignore-eos", "--max-tokens",
                           str(NEW_TOKENS), *map(str, flags)],
                          input=json.dumps(prompt), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout)


def seconds(result):
    return sum(result["timings_ms"].values()) / 1e3


def answers(result):
    return [(part["token_ids"], part["logprobs"])
            for part in result.get("continuations", [result])]


SAMPLING = ("--temperature", 0.8, "--seed", 1)


def check(binaries, address, prompt):
    together = answers(ask(binaries, address, prompt, "--branches", ",".join(map(str, GROUPS))))
    alone = [answers(ask(binaries, address, prompt, "--branches", group))[0] for group in GROUPS]
    many = answers(ask(binaries, address, prompt, "--n", SAMPLES, *SAMPLING))
    one = answers(ask(binaries, address, prompt, *SAMPLING))
    if together != alone or many[0] != one[0] or len(many) != SAMPLES:
        sys.exit(f"{prompt['id']}: a continuation is not what it is alone")


def measure(binaries, address, prompts, rounds):
    """{kind: [ratio of each prompt and round]}"""
    kinds = {"six branches": (("--branches", GROUPS[0]),
                              ("--branches", ",".join(map(str, GROUPS)))),
             "sixteen samples": (SAMPLING, ("--n", SAMPLES, *SAMPLING))}
    ratios = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for prompt in prompts:
            for kind, (one, many) in kinds.items():
                single = seconds(ask(binaries, address, prompt, *one))
                ratios[kind].append(seconds(ask(binaries, address, prompt, *many)) / single)
    return ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--models-dir", type=pathlib.Path, required=True)
    parser.add_argument("--binaries", type=pathlib.Path, default=parity.ROOT / "build/release/bin")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    models = parity.model_folders([options.model], options.models_dir, None)
    prompts = evaluation_prompts.make_prompts(1, options.prompts)
    with tempfile.TemporaryDirectory() as scratch:
        with parity.serving(options.binaries, models, pathlib.Path(scratch, "log"),
                            "bfloat16") as address:
            for prompt in prompts[:2]:
                check(options.binaries, address, prompt)
            ratios = measure(options.binaries, address, prompts, options.rounds)
    missed = False
    for kind, values in ratios.items():
        median = statistics.median(values)
        missed |= median > BARS[kind]
        print(f"{options.model} bfloat16, {kind} of {NEW_TOKENS} tokens: {median:.2f} x one "
              f"({min(values):.2f} to {max(values):.2f} over {len(values)}); "
              f"at most {BARS[kind]} wanted")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
