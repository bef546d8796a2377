"""Decoding and prompts of a mixture of experts, in bfloat16, beside Hugging Face and the machine.

Run by hand with a Python that has tests/golden/requirements.txt:
  mixture_vs_hf.py [--rounds N] [--threads N] [--scratch DIR]
It makes a Qwen3-MoE of random weights, 1.3 GB with 32 experts of which a token has 4, and wants
Hugging Face's float32 tokens first: a fast wrong answer is not timed. Then, in turns: one and 8
streams decoding, and prompts of 512 tokens. A decoding step of one stream is set against the read
bandwidth times the bytes that it needs: all matrices but the experts that were not chosen.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
sys.path.insert(0, str(GOLDEN))

import numpy as np  # noqa: E402  (the path comes first)
import torch  # noqa: E402
import transformers  # noqa: E402

import make_models  # noqa: E402
import parity  # noqa: E402
import steps  # noqa: E402

SHAPE = {**make_models.DEFAULTS, "family": "qwen3_moe", "tokenizer": "qwen3", "hidden": 1024,
         "heads": 16, "kv_heads": 4, "head_dim": 64, "intermediate": 3072, "vocabulary": 3072,
         "layers": 8, "theta": 1e6, "experts": 32, "chosen": 4, "expert_size": 768,
         "normalize": True, "dtype": "bfloat16"}
NAME = "mixture"
PROMPT = 512
DECODED = 32  # Tokens of a decoding stream.
CHECKED = 16  # Tokens that must be Hugging Face's.
STREAMS = 8


def write_model(root):
    """A folder whose matrices are pieces of one run of random numbers: values do not matter to
    speed, and drawing all of them would take minutes."""
    pool = np.random.RandomState(1).standard_normal(1 << 22).astype("<f4")
    make_models.MODELS[NAME] = SHAPE
    make_models.random_tensors = lambda _: {
        name: _pieces(pool, size, number) * (1.0 if len(size) == 1 else 1.4 / size[-1] ** 0.5)
        for number, (name, size) in enumerate(make_models.tensor_shapes(SHAPE).items())}
    return make_models.make_model(root, NAME)


def _pieces(pool, size, number):
    count = int(np.prod(size))
    return np.resize(np.roll(pool, -977 * number), count).reshape(size)


def token_bytes(weight_bytes):
    """Of one token's step: without the experts that it did not choose."""
    unused = SHAPE["experts"] - SHAPE["chosen"]
    expert = 3 * SHAPE["hidden"] * SHAPE["expert_size"] * 2
    return weight_bytes - SHAPE["layers"] * unused * expert


def random_ids(count, seed):
    return np.random.RandomState(seed).randint(0, 2000, count).tolist()


def load_hf(folder, dtype):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="sdpa").eval()


@torch.inference_mode()
def check_answers(options, folder):
    model = load_hf(folder, "float32")
    ours = steps.StepBench(options.binaries, folder, "float32", options.threads)
    for seed in range(3):
        ids = random_ids(30 + 60 * seed, seed)
        got = ours.ask("greedy", CHECKED, *ids)["token_ids"]
        logits = model(torch.tensor([ids + got])).logits[0, len(ids) - 1:-1]
        gaps = logits.max(-1).values - logits[range(len(got)), got]
        if len(got) != CHECKED or gaps.max() > 1e-3:
            sys.exit(f"prompt {seed}: {got} instead of {logits.argmax(-1).tolist()}")
    ours.close()
    print(f"float32: {3 * CHECKED} tokens are Hugging Face's", flush=True)


@torch.inference_mode()
def time_hf(model, streams, prompt, decoded, seed):
    """Seconds of the prompts, and of the steps behind them, greedy with a KV cache."""
    ids = torch.tensor([random_ids(prompt, seed + stream) for stream in range(streams)])
    cache = transformers.DynamicCache(config=model.config)
    times = [time.perf_counter()]
    for _ in range(decoded):
        logits = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        ids = logits[:, -1:].argmax(-1)
        times.append(time.perf_counter())
    return times[1] - times[0], times[-1] - times[1]


def run_round(turn, ours, theirs, figures):
    bandwidth = ours.ask("bandwidth")["bytes_per_second"]
    figures.add("read bandwidth GB/s", bandwidth / 1e9)
    for streams in (1, STREAMS):
        seed = 1000 * turn + streams
        seconds = ours.ask("decode", streams, DECODED, seed)["seconds"]
        figures.add(f"ours decode x{streams} tok/s", streams * (DECODED - 1) / seconds)
        _, seconds = time_hf(theirs, streams, 8, DECODED, seed)
        figures.add(f"Hugging Face decode x{streams} tok/s", streams * (DECODED - 1) / seconds)
    figures.add("bound of decode x1 tok/s", bandwidth / token_bytes(ours.facts["weight_bytes"]))
    seconds = ours.ask("prefill", PROMPT, turn)["seconds"]
    figures.add(f"ours prompt {PROMPT} tok/s", PROMPT / seconds)
    figures.add(f"Hugging Face prompt {PROMPT} tok/s",
                PROMPT / time_hf(theirs, 1, PROMPT, 1, turn)[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binaries", type=pathlib.Path, default=parity.ROOT / "build/release/bin")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--scratch", type=pathlib.Path, help="where the model is made")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = write_model(scratch)
        check_answers(options, folder)
        ours = steps.StepBench(options.binaries, folder, "bfloat16", options.threads)
        theirs = load_hf(folder, "bfloat16")
        total = ours.facts["weight_bytes"]
        print(json.dumps({**ours.facts, "token_bytes": token_bytes(total)}), flush=True)
        figures = steps.Figures()
        run_round(-1, ours, theirs, steps.Figures())
        for turn in range(options.rounds):
            run_round(turn, ours, theirs, figures)
        ours.close()
    figures.show()
    for what in ("decode x1", f"decode x{STREAMS}", f"prompt {PROMPT}"):
        steps.show_bar(f"{what}: against Hugging Face",
                       figures.ratio(f"ours {what} tok/s", f"Hugging Face {what} tok/s"), 1.0)
    share = figures.ratio("ours decode x1 tok/s", "bound of decode x1 tok/s")
    print(f"  decode x1: {share:.2f} of what the read bandwidth allows")


if __name__ == "__main__":
    main()
