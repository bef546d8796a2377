"""Multiple-choice items per second of `structattn score` against lm-evaluation-harness's Hugging
Face model, zero-shot and below five shots that all items share.

Run by hand with a Python that has tests/golden/requirements.txt and PyPI `lm-eval`:
  score_vs_lm_eval.py --model smollm2 --models-dir DIR [--items N] [--rounds N] [--shots 0 5]
Same items, same machine, bfloat16, interleaved; the peer at the best of several batch sizes, its
time without loading the model, ours with the start of the command. Sums are compared in float32
first. A run's server begins with an empty cache.
"""

import argparse
import logging
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time

BENCH = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(BENCH.parent / "golden")]

from lm_eval.api.instance import Instance  # noqa: E402  (the path comes first)
from lm_eval.models.huggingface import HFLM  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

import evaluation_prompts  # noqa: E402
import parity  # noqa: E402

OPTIONS = 4
BATCH_SIZES = (1, 4, 16, 64)
BARS = {0: 3.0, 5: 10.0}
LEAST_DIFFERENCE = 1e-3  # Per token, in float32.


def _question(rng):
    ways = rng.choice(evaluation_prompts.RELATIONS)
    return f"Question: {rng.choice(ways).format(x=evaluation_prompts.name(rng))}\nAnswer:"


def make_items(seed, count, shots):
    """Contract JSON of `structattn score`: one context, four options of a name each."""
    rng = random.Random(seed)
    shared = "".join(f"{_question(rng)} {evaluation_prompts.name(rng)}\n\n" for _ in range(shots))
    return [{"id": index, "rule": "causal",
             "segments": [{"type": "few_shot", "text": shared},
                          {"type": "answer_cue", "text": _question(rng)}],
             "continuations": [" " + evaluation_prompts.name(rng) for _ in range(OPTIONS)]}
            for index in range(count)]


def load_peer(folder, dtype, batch_size):
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    config = transformers.AutoConfig.from_pretrained(folder)
    end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    return HFLM(pretrained=str(folder), tokenizer=tokenizer, dtype=dtype, device="cpu",
                batch_size=batch_size)


def ask_peer(peer, items):
    """(seconds, sums and greediness by item)."""
    requests = [Instance("loglikelihood", {}, (item["segments"][0]["text"] +
                                               item["segments"][1]["text"], continuation), 0)
                for item in items for continuation in item["continuations"]]
    begin = time.perf_counter()
    pairs = peer.loglikelihood(requests, disable_tqdm=True)
    seconds = time.perf_counter() - begin
    return seconds, [pairs[at:at + OPTIONS] for at in range(0, len(pairs), OPTIONS)]


def ask_ours(options, address, items):
    begin = time.perf_counter()
    results = parity.run_score(options.binaries, address, options.model, items)
    return time.perf_counter() - begin, results


def check(options, models, scratch, items):
    """Both in float32."""
    with parity.serving(options.binaries, models, scratch / "check.log") as address:
        _, ours = ask_ours(options, address, items)
    _, theirs = ask_peer(load_peer(models[options.model], "float32", 4), items)
    worst = 0.0
    for result, pairs in zip(ours, theirs, strict=True):
        for score, (logprob, is_greedy) in zip(result["scores"], pairs, strict=True):
            error = abs(score["logprob"] - logprob) / len(score["token_ids"])
            worst = max(worst, error)
            if error > LEAST_DIFFERENCE or score["is_greedy"] != is_greedy:
                sys.exit(f"item {result['id']}: {score} and {logprob}, {is_greedy}")
    print(f"float32: {len(items) * OPTIONS} sums agree, worst error {worst:.1e} per token",
          flush=True)


def measure(options, models, scratch, shots):
    """Median over the rounds of (our rate / their rate)."""
    items = make_items(1 + shots, options.items, shots)
    check(options, models, scratch, items[:4])
    peers = {size: load_peer(models[options.model], "bfloat16", size) for size in BATCH_SIZES}
    sample = items[:max(4, options.items // 8)]
    best = min(BATCH_SIZES, key=lambda size: ask_peer(peers[size], sample)[0])
    ratios = []
    for turn in range(options.rounds):
        with parity.serving(options.binaries, models, scratch / f"server{turn}.log",
                            "bfloat16") as address:
            ours, _ = ask_ours(options, address, items)
        theirs, _ = ask_peer(peers[best], items)
        ratios.append(theirs / ours)
        print(f"round {turn + 1}: structattn {options.items / ours:.2f} items/s, lm-eval (batch "
              f"{best}) {options.items / theirs:.2f} items/s", flush=True)
    return statistics.median(ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--models-dir", type=pathlib.Path, required=True)
    parser.add_argument("--binaries", type=pathlib.Path, default=parity.ROOT / "build/release/bin")
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 5], choices=sorted(BARS))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the peer")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    models = parity.model_folders([options.model], options.models_dir, None)
    missed = False
    with tempfile.TemporaryDirectory() as scratch:
        for shots in options.shots:
            ratio = measure(options, models, pathlib.Path(scratch), shots)
            missed |= ratio < BARS[shots]
            print(f"{options.model} bfloat16, {shots} shots: {ratio:.1f} x lm-eval, at least "
                  f"{BARS[shots]} wanted", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
