"""Prompts per second of an evaluation run against Hugging Face and llama.cpp.

Run by hand with a Python that has tests/golden/requirements.txt, and llama.cpp from
build_llama_cpp.sh:
  evaluation_vs_peers.py --model smollm2 --models-dir DIR --llama-cpp DIR [--rounds N] [--prompts N]
A run is 64 prompts of about 370 tokens (evaluation_prompts.py): four shots, six paraphrases, eight
new tokens, at most 16 at a time, bfloat16. Each round has prompts of its own and fresh servers, so
that nothing is cached from before; starting them is not timed, tokenization is. The slow peers get
fewer of the round's prompts, and their rate stands for the whole run, which is fair: no peer
but llama.cpp carries anything from prompt to prompt. Peers, in turns with ours in every round:
  Hugging Face eager, 4D mask, batch 1: with a KV cache; and without, as the method's authors run it
  Hugging Face eager, 4D masks, padded batches of 16, with a KV cache
  llama.cpp's server, 16 slots, prompt cache: the same prompts without a mask, against ours as CAUSAL
Our float32 tokens must be Hugging Face's before anything is timed.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
sys.path.insert(0, str(GOLDEN))

import torch  # noqa: E402  (the path comes first)

import cases  # noqa: E402
import hf_decode  # noqa: E402
import parity  # noqa: E402
import reference  # noqa: E402
from serving import serving  # noqa: E402

import evaluation_prompts  # noqa: E402
import hf_batched  # noqa: E402
import llama_cpp  # noqa: E402

NEW_TOKENS = 8
CONCURRENCY = 16
CHECKED = 4   # Prompts whose float32 tokens are compared.
BATCH = 16    # Of padded prompts.
BARS = {"smollm2": {"cached": 10, "recomputed": 40, "padded": 3, "llama.cpp": 4},
        "qwen2.5-0.5b": {"cached": 7, "recomputed": 25, "padded": 3, "llama.cpp": 4}}


def run_ours(options, address, prompts, scratch):
    """Token ids of each prompt by `structattn batch`, and its seconds."""
    given, answered = scratch / "in.jsonl", scratch / "out.jsonl"
    given.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts), encoding="utf-8")
    command = [options.binaries / "structattn", "batch", given, "-o", answered, "--server",
               address, "--model", options.model, "--concurrency", CONCURRENCY,
               "--max-tokens", NEW_TOKENS, "--ignore-eos"]
    begin = time.perf_counter()
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    seconds = time.perf_counter() - begin
    results = cases.read_jsonl(answered)
    answered.unlink()
    failed = [result for result in results if len(result.get("token_ids", [])) != NEW_TOKENS]
    if failed or len(results) != len(prompts):
        sys.exit(f"{len(results)} of {len(prompts)} answers; first failure: {failed[:1]}")
    return [result["token_ids"] for result in results], seconds


def time_ours(options, folder, prompts, scratch):
    """Prompts per second of a fresh server."""
    with serving(options.binaries, {options.model: folder}, scratch / "server.log",
                 "bfloat16") as address:
        _, seconds = run_ours(options, address, prompts, scratch)
    return len(prompts) / seconds


def check_answers(options, folder, encoder, scratch):
    prompts = evaluation_prompts.make_prompts(0, CHECKED)
    prompts += evaluation_prompts.make_prompts(0, CHECKED, "causal")
    with serving(options.binaries, {options.model: folder}, scratch / "check.log") as address:
        ours, _ = run_ours(options, address, prompts, scratch)
    model = hf_decode.load(folder, "float32")
    for prompt, got in zip(prompts, ours):
        encoded = reference.encode_prompt(prompt, encoder)
        decoded = hf_decode.greedy(model, encoded, prompt["positions"], NEW_TOKENS)
        step = next((step for step, pair in enumerate(zip(got, decoded.token_ids))
                     if pair[0] != pair[1]), None)
        if step is not None and decoded.margins[step] > 1e-3:
            sys.exit(f"{prompt['id']} {prompt['rule']}: {got} instead of {decoded.token_ids}")
    encoded = [reference.encode_prompt(prompt, encoder) for prompt in prompts]
    policies = [prompt["positions"] for prompt in prompts]
    single = [hf_decode.greedy(model, one, policy, NEW_TOKENS).token_ids
              for one, policy in zip(encoded, policies)]
    assert hf_batched.greedy_padded(model, encoded, policies, NEW_TOKENS) == single
    print(f"float32: the answers to {len(prompts)} prompts are Hugging Face's", flush=True)


class HuggingFace:
    """One bfloat16 model, timed in its three ways."""

    def __init__(self, folder, encoder):
        self._model = hf_decode.load(folder, "bfloat16")
        self._encoder = encoder

    def _encode(self, prompts):
        return ([reference.encode_prompt(prompt, self._encoder) for prompt in prompts],
                [prompt["positions"] for prompt in prompts])

    def cached(self, prompts):
        begin = time.perf_counter()
        for encoded, policy in zip(*self._encode(prompts)):
            hf_decode.greedy(self._model, encoded, policy, NEW_TOKENS)
        return len(prompts) / (time.perf_counter() - begin)

    def recomputed(self, prompts):
        begin = time.perf_counter()
        for encoded, policy in zip(*self._encode(prompts)):
            hf_batched.greedy_recomputed(self._model, encoded, policy, NEW_TOKENS)
        return len(prompts) / (time.perf_counter() - begin)

    def padded(self, prompts):
        begin = time.perf_counter()
        for first in range(0, len(prompts), BATCH):
            hf_batched.greedy_padded(self._model, *self._encode(prompts[first:first + BATCH]),
                                     NEW_TOKENS)
        return len(prompts) / (time.perf_counter() - begin)


def time_llama(options, encoder, prompts):
    """Prompts per second of a fresh llama-server, without a mask."""
    with llama_cpp.Server(options.llama_cpp, options.model, options.threads,
                          CONCURRENCY) as server:
        begin = time.perf_counter()
        ids = [reference.encode_prompt(prompt, encoder).token_ids for prompt in prompts]
        answers = server.complete_all(ids, NEW_TOKENS)
        seconds = time.perf_counter() - begin
    assert all(len(answer) == NEW_TOKENS for answer in answers), answers[:2]
    return len(prompts) / seconds


def run_round(options, folder, theirs, turn, scratch):
    """{name: prompts per second} on prompts that only this round has."""
    masked = evaluation_prompts.make_prompts(2 * turn, options.prompts)
    causal = evaluation_prompts.make_prompts(2 * turn + 1, options.prompts, "causal")
    encoder = reference.Encoder(folder / "tokenizer.json")
    few = max(1, options.prompts // 8)
    return {"ours": time_ours(options, folder, masked, scratch),
            "padded": theirs.padded(masked[:max(BATCH, 2 * few)]),
            "cached": theirs.cached(masked[:few]),
            "recomputed": theirs.recomputed(masked[:max(1, few // 4)]),
            "ours causal": time_ours(options, folder, causal, scratch),
            "llama.cpp": time_llama(options, encoder, causal)}


def show(options, rounds):
    for name in rounds[0]:
        rates = [values[name] for values in rounds]
        print(f"  {name:12s} best {max(rates):7.2f}  median {statistics.median(rates):7.2f} "
              f"prompts/s")
    for name, bar in BARS[options.model].items():
        mine = "ours causal" if name == "llama.cpp" else "ours"
        ratio = statistics.median(values[mine] / values[name] for values in rounds)
        print(f"  against {name:12s} {ratio:7.2f} x (median of rounds)  bar {bar}  "
              f"{'met' if ratio >= bar else 'NOT met'}")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=cases.REAL_MODELS, required=True)
    parser.add_argument("--models-dir", type=pathlib.Path, required=True)
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True,
                        help="where build_llama_cpp.sh built")
    parser.add_argument("--binaries", type=pathlib.Path,
                        default=parity.ROOT / "build/release/bin")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(),
                        help="of the peers; the server chooses its own")
    return parser.parse_args()


def main():
    options = parse_options()
    torch.set_num_threads(options.threads)
    folder = parity.model_folders([options.model], options.models_dir, None)[options.model]
    encoder = reference.Encoder(folder / "tokenizer.json")
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        check_answers(options, folder, encoder, scratch)
        theirs = HuggingFace(folder, encoder)
        theirs.cached(evaluation_prompts.make_prompts(0, 1))
        rounds = []
        for turn in range(1, options.rounds + 1):
            rounds.append(run_round(options, folder, theirs, turn, scratch))
            figures = ", ".join(f"{key} {value:.2f}" for key, value in rounds[-1].items())
            print(f"round {turn}, load {os.getloadavg()[0]:.1f}: {figures}", flush=True)
    print(f"{options.model} bfloat16, {options.prompts} prompts, {NEW_TOKENS} new tokens, "
          f"{CONCURRENCY} at a time:")
    show(options, rounds)


if __name__ == "__main__":
    main()
