"""What quantized weights cost in accuracy and give in speed: int8 against bfloat16, and a GGUF file's
own blocks against llama.cpp on the same file.

Run by hand with Python 3.11's standard library, and llama.cpp from build_llama_cpp.sh:
  quantized_weights.py --model smollm2 --models-dir DIR [--llama-cpp DIR] [--rounds N]
First the answers: the perplexity of a text of 20,000 tokens (the licences that Debian ships, in
windows) with int8 weights against bfloat16, and the tokens of the GGUF file in float32, packed and
with `--quantization none`, which must be the same. Then one stream decodes with each, round after
round in turns; the ratios are medians of the rounds' own.
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
sys.path.insert(0, str(GOLDEN))

import llama_cpp  # noqa: E402  (the path comes first)
import serving  # noqa: E402
import steps  # noqa: E402

ROOT = GOLDEN.parent.parent
LICENSES = ("GPL-3", "LGPL-2.1", "Apache-2.0", "GFDL-1.3", "MPL-2.0")
FOLDER = pathlib.Path("/usr/share/common-licenses")
TOKENS = 20_000
WINDOW_CHARACTERS = 3000
CONTEXT_CHARACTERS = 200  # Of a window, not scored.
DECODED = 32
PERPLEXITY_BAR = 1.005
INT8_BAR = 1.6
PACKED_BAR = 1.0


def windows():
    text = "".join((FOLDER / name).read_text(encoding="utf-8") for name in LICENSES)
    for begin in range(0, len(text) - WINDOW_CHARACTERS, WINDOW_CHARACTERS):
        window = text[begin:begin + WINDOW_CHARACTERS]
        context = window[:CONTEXT_CHARACTERS].rstrip()
        yield {"segments": [{"type": "context", "text": context}], "rule": "causal",
               "continuations": [window[len(context):]]}


def perplexity(options, quantization, lines, scratch):
    """Of the first TOKENS tokens of the text, and how many were scored."""
    scores = pathlib.Path(scratch, f"{quantization}.jsonl")
    server = serving.Server(options.binaries, {"m": options.models_dir / f"{options.model}-hf"},
                            pathlib.Path(scratch, "log"),
                            ["--dtype", "bfloat16", "--quantization", quantization])
    try:
        subprocess.run([options.binaries / "structattn", "score", lines, "-o", scores, "--server",
                        server.address], check=True)
    finally:
        server.stop()
    logprobs = [logprob for line in scores.read_text(encoding="utf-8").splitlines()
                for logprob in json.loads(line)["scores"][0]["token_logprobs"]][:TOKENS]
    return math.exp(-sum(logprobs) / len(logprobs)), len(logprobs)


def check_perplexity(options):
    with tempfile.TemporaryDirectory() as scratch:
        lines = pathlib.Path(scratch, "text.jsonl")
        lines.write_text("".join(json.dumps(line) + "\n" for line in windows()), encoding="utf-8")
        plain, count = perplexity(options, "none", lines, scratch)
        rounded, _ = perplexity(options, "int8", lines, scratch)
    print(f"perplexity of {count} tokens: bfloat16 {plain:.4f}, int8 {rounded:.4f}", flush=True)
    return steps.show_bar("perplexity, int8 / bfloat16", rounded / plain, PERPLEXITY_BAR, most=True)


def check_packed(options, gguf):
    """Packed blocks mean the values that expanding gives."""
    ids = [(17 * i) % 40000 for i in range(60)]
    answers = []
    for quantization in ("stored", "none"):
        bench = steps.StepBench(options.binaries, gguf, "float32", options.threads, quantization)
        answers.append(bench.ask("greedy", DECODED, *ids)["token_ids"])
        bench.close()
    if answers[0] != answers[1]:
        sys.exit(f"{gguf.name}: packed {answers[0]}, with --quantization none {answers[1]}")
    print(f"{gguf.name}: {DECODED} tokens agree, packed and with --quantization none", flush=True)


def decode(bench, turn):
    return (DECODED - 1) / bench.ask("decode", 1, DECODED, turn)["seconds"]


def run_rounds(options, gguf):
    folder = options.models_dir / f"{options.model}-hf"
    variants = (("bfloat16", folder, "none"), ("int8", folder, "int8"), ("packed", gguf, "stored"))
    benches = {name: steps.StepBench(options.binaries, path, "bfloat16", options.threads, quantization)
               for name, path, quantization in variants}
    for bench in benches.values():
        decode(bench, 0)
    figures = steps.Figures()
    for turn in range(1, options.rounds + 1):
        for name, bench in benches.items():
            figures.add(f"{name} tok/s", decode(bench, turn))
        if options.llama_cpp:
            rates = llama_cpp.bench(options.llama_cpp, gguf, options.threads,
                                    ["-p", 0, "-n", DECODED])
            figures.add("llama.cpp tok/s", next(iter(rates.values())))
    for name, bench in benches.items():
        print(f"  {name}: {bench.facts['weights']}, {bench.facts['weight_bytes'] / 1e6:.0f} MB a token")
        bench.close()
    return figures


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=("smollm2", "qwen2.5-0.5b"), required=True)
    parser.add_argument("--models-dir", type=pathlib.Path, required=True)
    parser.add_argument("--llama-cpp", type=pathlib.Path, help="where build_llama_cpp.sh built")
    parser.add_argument("--binaries", type=pathlib.Path, default=ROOT / "build/release/bin")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


def main():
    options = parse_options()
    gguf = options.models_dir / f"{options.model}.gguf"
    met = check_perplexity(options)
    check_packed(options, gguf)
    figures = run_rounds(options, gguf)
    print(f"{options.model}, {options.threads} threads, one stream:")
    figures.show()
    met &= steps.show_bar("int8 against bfloat16", figures.ratio("int8 tok/s", "bfloat16 tok/s"),
                          INT8_BAR)
    if options.llama_cpp:
        met &= steps.show_bar(f"packed {gguf.name} against llama.cpp",
                              figures.ratio("packed tok/s", "llama.cpp tok/s"), PACKED_BAR)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
