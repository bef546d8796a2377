"""Prompts per second of `structattn batch` against Hugging Face eager with a KV cache.

Run by hand with a Python that has tests/golden/requirements.txt:
  throughput_vs_hf.py --model smollm2 --models-dir DIR [--prompts N] [--rounds N] [--threads N]
Same prompts, same machine, bfloat16, 16 new tokens, interleaved A B A B; one side sleeps while the
other works. Our answers are checked against the float32 goldens first: a fast wrong answer is
not timed. Hugging Face runs the founding method: batch 1, 4D additive mask, greedy, DynamicCache.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
sys.path.insert(0, str(GOLDEN))

import torch  # noqa: E402  (the path comes first)

import cases  # noqa: E402
import compare  # noqa: E402
import hf_decode  # noqa: E402
import parity  # noqa: E402
import reference  # noqa: E402


def check_answers(options, models, scratch):
    """float32 answers over the wire must be the goldens'."""
    with parity.serving(options.binaries, models, scratch / "check.log") as address:
        results = parity.run_batch(options.binaries, address, options.model,
                                   cases.cases_of(options.model), ["--ignore-eos"])
    report = compare.compare(results, cases.golden_path(options.model))
    print(f"float32 answers: {report.summary()}", flush=True)
    if report.failures:
        sys.exit("\n".join(report.failures[:10]))


def time_ours(options, address, prompts):
    """Seconds of one `structattn batch`, its start included."""
    begin = time.perf_counter()
    results = parity.run_batch(options.binaries, address, options.model, prompts,
                               ["--ignore-eos"])
    seconds = time.perf_counter() - begin
    failed = [result for result in results if "error" in result]
    if failed or len(results) != len(prompts):
        sys.exit(f"{len(results)} of {len(prompts)} answers, {len(failed)} failed: {failed[:1]}")
    return seconds, [result["token_ids"] for result in results]


def time_theirs(model, encoder, prompts):
    """Seconds of Hugging Face for the same prompts, tokenization included."""
    begin = time.perf_counter()
    tokens = []
    for prompt in prompts:
        encoded = reference.encode_prompt(prompt, encoder)
        tokens.append(hf_decode.greedy(model, encoded, prompt.get("positions", "sequential"),
                                       cases.NEW_TOKENS).token_ids)
    return time.perf_counter() - begin, tokens


def agreement(ours, theirs):
    """Share of generated tokens before the first difference; bfloat16 forks early or late."""
    same = total = 0
    for left, right in zip(ours, theirs):
        total += len(right)
        same += next((step for step, pair in enumerate(zip(left, right)) if pair[0] != pair[1]),
                     len(right))
    return same / total


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=cases.REAL_MODELS, required=True)
    parser.add_argument("--models-dir", type=pathlib.Path, required=True)
    parser.add_argument("--binaries", type=pathlib.Path,
                        default=parity.ROOT / "build/release/bin")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count(),
                        help="of Hugging Face; the server chooses its own")
    return parser.parse_args()


def main():
    options = parse_options()
    torch.set_num_threads(options.threads)
    models = parity.model_folders([options.model], options.models_dir, None)
    folder = models[options.model]
    prompts = cases.cases_of(options.model)[:options.prompts]
    rates = {"structattn": [], "hugging face": []}
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        check_answers(options, models, scratch)
        model = hf_decode.load(folder, "bfloat16")
        encoder = reference.Encoder(folder / "tokenizer.json")
        with parity.serving(options.binaries, models, scratch / "server.log",
                            "bfloat16") as address:
            time_ours(options, address, prompts[:2])
            time_theirs(model, encoder, prompts[:2])
            for turn in range(options.rounds):
                seconds, ours = time_ours(options, address, prompts)
                rates["structattn"].append(len(prompts) / seconds)
                seconds, theirs = time_theirs(model, encoder, prompts)
                rates["hugging face"].append(len(prompts) / seconds)
                print(f"round {turn + 1}: structattn {rates['structattn'][-1]:.2f} prompts/s, "
                      f"Hugging Face {rates['hugging face'][-1]:.2f} prompts/s, "
                      f"{agreement(ours, theirs):.1%} of tokens before a first difference",
                      flush=True)
    ours, theirs = (sum(values) / len(values) for values in rates.values())
    print(f"{options.model} bfloat16, {len(prompts)} prompts, {cases.NEW_TOKENS} new tokens: "
          f"structattn {ours:.2f} prompts/s, Hugging Face {theirs:.2f} prompts/s, "
          f"ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
