"""Decoding and prompts of one model, in bfloat16, against what the machine and its peers can do.

Run by hand with a Python that has tests/golden/requirements.txt, and llama.cpp from
build_llama_cpp.sh:
  steps_vs_peers.py --model smollm2 --models-dir DIR --llama-cpp DIR [--rounds N] [--threads N]
The float32 tokens of our engine must be Hugging Face's first: a fast wrong answer is not timed.
Then, round after round in turns: the read bandwidth over a buffer as large as the weights; one and
16 streams decoding; prompts of 512 and 2048 causal tokens; llama.cpp (llama-bench) and Hugging Face
(SDPA) doing the same. Prints the best round of each, the median, and the ratios that the bars name:
medians of the rounds' own ratios, since a shared machine's memory changes its speed by the minute.
"""

import argparse
import os
import pathlib
import random
import statistics
import sys
import time

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
sys.path.insert(0, str(GOLDEN))

import torch  # noqa: E402  (the path comes first)
import transformers  # noqa: E402

import cases  # noqa: E402
import llama_cpp  # noqa: E402
import parity  # noqa: E402
import steps  # noqa: E402

PROMPTS = (512, 2048)
STREAMS = 16
DECODED = 32  # Tokens of a decoding stream.
REST_S = 1.0  # Before what memory bounds: a virtual machine may lend bandwidth in bursts.
CHECKED = 24  # Tokens that must be Hugging Face's.


def load_hf(folder, dtype, attention):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation=attention).eval()


def random_ids(count, limit, seed):
    rng = random.Random(seed)
    return [rng.randrange(limit) for _ in range(count)]


@torch.inference_mode()
def check_answers(options, folder):
    """Ours and theirs after a few prompts of random ids, in float32."""
    model = load_hf(folder, "float32", "eager")
    ours = steps.StepBench(options.binaries, folder, "float32", options.threads)
    for seed in range(4):
        ids = random_ids(40 + 90 * seed, 40000, seed)
        got = ours.ask("greedy", CHECKED, *ids)["token_ids"]
        logits = model(torch.tensor([ids + got])).logits[0, len(ids) - 1:-1].float()
        best = logits.argmax(-1).tolist()
        gaps = logits.max(-1).values - logits[range(len(got)), got]
        wrong = [step for step, gap in enumerate(gaps.tolist()) if gap > 1e-3]
        if wrong:
            sys.exit(f"prompt {seed}, token {wrong[0]}: {got[wrong[0]]} instead of "
                     f"{best[wrong[0]]}")
    ours.close()
    print(f"float32: {4 * CHECKED} tokens are Hugging Face's", flush=True)


@torch.inference_mode()
def time_hf_prompt(model, count, seed):
    ids = torch.tensor([random_ids(count, model.config.vocab_size, seed)])
    begin = time.perf_counter()
    model(ids, use_cache=True, logits_to_keep=1)
    return time.perf_counter() - begin


def run_our_decodes(turn, ours, figures):
    """One stream between two measurements of the bandwidth that bounds it; then 16."""
    reads = [ours.ask("bandwidth")["bytes_per_second"] / 1e9]
    for streams in (1, STREAMS):
        time.sleep(REST_S)
        seconds = ours.ask("decode", streams, DECODED, 1000 * turn + streams)["seconds"]
        rate = streams * (DECODED - 1) / seconds
        figures.add(f"ours decode x{streams} tok/s", rate)
        if streams == 1:
            figures.add("ours decode x1 GB/s", rate * ours.facts["weight_bytes"] / 1e9)
            reads.append(ours.ask("bandwidth")["bytes_per_second"] / 1e9)
    figures.add("read bandwidth GB/s", statistics.mean(reads))


def run_llama(options, arguments, figures):
    time.sleep(REST_S)
    rates = llama_cpp.bench(options.llama_cpp,
                            llama_cpp.model_path(options.llama_cpp, options.model),
                            options.threads, arguments)
    for (prompt, _), rate in rates.items():
        figures.add(f"llama.cpp prompt {prompt} tok/s" if prompt
                    else "llama.cpp decode x1 tok/s", rate)


def run_round(options, turn, ours, theirs, figures):
    decodes = [lambda: run_our_decodes(turn, ours, figures),
               lambda: run_llama(options, ["-p", 0, "-n", DECODED], figures)]
    for run in decodes if turn % 2 else reversed(decodes):
        run()
    run_llama(options, ["-p", ",".join(map(str, PROMPTS)), "-n", 0], figures)
    for prompt in PROMPTS:
        seed = 1000 * turn + prompt
        seconds = ours.ask("prefill", prompt, seed)["seconds"]
        figures.add(f"ours prompt {prompt} tok/s", prompt / seconds)
        figures.add(f"Hugging Face prompt {prompt} tok/s",
                    prompt / time_hf_prompt(theirs, prompt, seed))


def show_bars(figures, prompt_bar):
    ratio = figures.ratio
    steps.show_bar("decode: share of read bandwidth",
             ratio("ours decode x1 GB/s", "read bandwidth GB/s"), 0.80)
    single = "llama.cpp decode x1 tok/s"
    steps.show_bar("decode: against llama.cpp", ratio("ours decode x1 tok/s", single), 1.15)
    steps.show_bar(f"decode of {STREAMS}: against llama.cpp's one stream",
             ratio(f"ours decode x{STREAMS} tok/s", single), 8.0)
    for prompt in PROMPTS:
        steps.show_bar(f"prompt {prompt}: against Hugging Face SDPA",
                 ratio(f"ours prompt {prompt} tok/s", f"Hugging Face prompt {prompt} tok/s"), 1.0)
        steps.show_bar(f"prompt {prompt}: against llama.cpp",
                 ratio(f"ours prompt {prompt} tok/s", f"llama.cpp prompt {prompt} tok/s"),
                 prompt_bar)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=cases.REAL_MODELS, required=True)
    parser.add_argument("--models-dir", type=pathlib.Path, required=True)
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True,
                        help="where build_llama_cpp.sh built")
    parser.add_argument("--binaries", type=pathlib.Path,
                        default=parity.ROOT / "build/release/bin")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


def main():
    options = parse_options()
    torch.set_num_threads(options.threads)
    folder = parity.model_folders([options.model], options.models_dir, None)[options.model]
    check_answers(options, folder)
    theirs = load_hf(folder, "bfloat16", "sdpa")
    ours = steps.StepBench(options.binaries, folder, "bfloat16", options.threads)
    time_hf_prompt(theirs, 64, 0)
    ours.ask("prefill", 64, 0)
    figures = steps.Figures()
    for turn in range(1, options.rounds + 1):
        run_round(options, turn, ours, theirs, figures)
        print(f"round {turn} of {options.rounds}, load {os.getloadavg()[0]:.1f}", flush=True)
    amx = "amx_bf16" in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    print(f"{options.model} bfloat16, {options.threads} threads, kernel {ours.facts['kernel']}, "
          f"{ours.facts['weight_bytes'] / 1e6:.0f} MB of weights a step:")
    figures.show()
    show_bars(figures, 2.0 if amx else 1.2)
    ours.close()


if __name__ == "__main__":
    main()
