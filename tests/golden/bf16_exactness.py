"""How far bfloat16 answers are from Hugging Face float32, against how far Hugging Face bfloat16's are.

To run by hand: bf16_exactness.py MODEL FOLDER [--threads N]. The measure is the mean
|log-probability - Hugging Face float32's| of the reference's own tokens over all golden prompts;
data/MODEL.jsonl holds Hugging Face's log-probabilities and the mean error of its own bfloat16. Standard
library only; the answers come from the program forced_logprobs.
"""

import argparse
import json
import pathlib
import subprocess

import cases

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LIMIT = 1.05  # Times Hugging Face's own error.


def requests_of(name):
    """[(golden line, request of forced_logprobs)]."""
    golden = {line["id"]: line for line in cases.read_jsonl(cases.golden_path(name))[1:]}
    pairs = []
    for case in cases.cases_of(name):
        line = golden[case["id"]]
        new = line["token_ids"]
        pairs.append((line, {"token_ids": line["prompt_token_ids"] + new,
                             "groups": cases.expand_runs(line["group_ids"]) + [0] * len(new),
                             "prompt_tokens": len(line["prompt_token_ids"]),
                             "positions": case.get("positions", "sequential"),
                             "rule": case.get("rule", "anchored")}))
    return pairs


def measure(bin_dir, name, folder, dtype="bfloat16", threads=2):
    """(mean error of ours, mean error of Hugging Face bfloat16, tokens)."""
    pairs = requests_of(name)
    done = subprocess.run([pathlib.Path(bin_dir) / "forced_logprobs", folder, dtype, str(threads)],
                          input="".join(json.dumps(request) + "\n" for _, request in pairs),
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    errors = []
    for (line, _), answer in zip(pairs, map(json.loads, done.stdout.splitlines()), strict=True):
        if answer["position_ids"] != cases.expand_ramps(line["position_ids"]):
            raise RuntimeError(f"{line['id']}: positions differ from the golden's")
        errors += [abs(ours - theirs) for ours, theirs
                   in zip(answer["logprobs"], line["logprobs"], strict=True)]
    header = cases.read_jsonl(cases.golden_path(name))[0]
    return sum(errors) / len(errors), header["mean_bf16_error"], len(errors)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("model", help="a name in data/")
    parser.add_argument("folder", type=pathlib.Path, help="its Hugging Face directory")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--binaries", type=pathlib.Path, default=ROOT / "build/release/bin")
    options = parser.parse_args()
    ours, theirs, tokens = measure(options.binaries, options.model, options.folder, options.dtype,
                                   options.threads)
    print(f"{options.model} {options.dtype}: mean error {ours:.6f} over {tokens} tokens; "
          f"Hugging Face bfloat16 {theirs:.6f}; ratio {ours / theirs:.3f} (limit {LIMIT})")


if __name__ == "__main__":
    main()
