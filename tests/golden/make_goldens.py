"""Writes data/<model>.jsonl: what Hugging Face eager attention answers to the test prompts.

Run by hand when prompts, models or the specification change; the results are committed. Needs
requirements.txt. make_goldens.py [MODEL ...] [--models-dir DIR] where DIR holds what
tests/models/fetch.sh writes (only the real models need it). Never run by the tests.

A golden file is one header line, then one line per case:
  prompt_token_ids; segments, group_ids as [value, count]; position_ids as [first, count];
  token_ids, logprobs, margins: 16 greedy float32 tokens, not stopped by EOS;
  stop_after: tokens up to and with the first EOS, or null;
  bf16_error: mean |log-probability in Hugging Face bfloat16 - in float32| of those tokens.
"""

import argparse
import json
import pathlib
import sys
import tempfile

import numpy
import tokenizers
import torch
import transformers

import cases
import hf_decode
import make_models
import reference

FORK = 1e-3  # Below this margin either token is right.
ROUNDING = 1e-4  # Of a logit.


def check_recomputed(case, decoded, again):
    """Cached decoding and recomputation must choose the same tokens. Returns the largest
    difference of log-probabilities, up to a fork."""
    worst = 0.0
    for step, margin in enumerate(decoded.margins):
        worst = max(worst, abs(decoded.logprobs[step] - again.logprobs[step]))
        if decoded.token_ids[step] != again.token_ids[step]:
            if margin >= FORK:
                raise SystemExit(f"{case['id']}: step {step} differs when recomputed: "
                                 f"{decoded.token_ids[step]}, {again.token_ids[step]}")
            break
    return worst


def check_mask_is_honoured(case, model, encoder):
    """A token that nobody sees changes nothing, bit by bit; the same token, once seen, does. In a
    mixture of experts, Hugging Face's products depend on which rows share an expert, by rounding.
    """
    rounding = ROUNDING if getattr(model.config, "num_experts_per_tok", None) else 0.0
    encoded = reference.encode_prompt(case, encoder)
    size = len(encoded.token_ids)
    hidden = size // 2
    other = encoded.token_ids.copy()
    other[hidden] = (other[hidden] + 1) % 256
    visible = reference.visibility(encoded.groups, encoded.visible)
    for seen in (False, True):
        visible[hidden + 1:, hidden] = seen
        with torch.inference_mode():
            first, second = (hf_decode.forward(model, ids, encoded.positions, visible)[-1]
                             for ids in (encoded.token_ids, other))
        if ((first - second).abs().max() > rounding) != seen:
            raise SystemExit(f"{case['id']}: the mask is not honoured")


def golden_of(case, model, encoder):
    encoded = reference.encode_prompt(case, encoder)
    policy = case.get("positions", "sequential")
    decoded = hf_decode.greedy(model, encoded, policy, cases.NEW_TOKENS)
    again = hf_decode.recompute(model, encoded, policy, decoded.token_ids)
    worst = check_recomputed(case, decoded, again)
    ends = [step + 1 for step, token in enumerate(decoded.token_ids)
            if token in hf_decode.eos_ids(model)]
    line = {"id": case["id"], "prompt_token_ids": encoded.token_ids,
            "segments": cases.run_lengths(encoded.segments),
            "group_ids": cases.run_lengths(encoded.groups),
            "position_ids": cases.ramps(encoded.positions),
            "token_ids": decoded.token_ids,
            "logprobs": [round(value, 6) for value in decoded.logprobs],
            "margins": [round(value, 6) for value in decoded.margins],
            "stop_after": ends[0] if ends else None}
    return encoded, line, worst


def add_bf16_errors(lines, prompts, folder, policies):
    model = hf_decode.load(folder, "bfloat16")
    for line, encoded, policy in zip(lines, prompts, policies):
        forced = hf_decode.forced_logprobs(model, encoded, policy, line["token_ids"])
        errors = numpy.abs(numpy.array(forced) - numpy.array(line["logprobs"]))
        line["bf16_error"] = round(float(errors.mean()), 6)


def make(name, folder):
    model = hf_decode.load(folder)
    encoder = reference.Encoder(folder / "tokenizer.json")
    all_cases = cases.cases_of(name)
    check_mask_is_honoured(all_cases[-3], model, encoder)
    lines, prompts, worst = [], [], 0.0
    for number, case in enumerate(all_cases):
        print(f"{name}: {number} of {len(all_cases)}", end="\r", file=sys.stderr, flush=True)
        encoded, line, difference = golden_of(case, model, encoder)
        lines.append(line)
        prompts.append(encoded)
        worst = max(worst, difference)
    del model
    add_bf16_errors(lines, prompts, folder,
                    [case.get("positions", "sequential") for case in all_cases])
    close = sum(min(line["margins"]) < FORK for line in lines)
    header = {"model": name, "weights_sha256": make_models.weights_digest(folder),
              "cases": len(lines), "close_cases": close,
              "worst_cached_vs_recomputed": round(worst, 7),
              "mean_bf16_error": round(sum(l["bf16_error"] for l in lines) / len(lines), 6),
              "torch": torch.__version__, "transformers": transformers.__version__,
              "tokenizers": tokenizers.__version__, "numpy": numpy.__version__}
    cases.DATA.mkdir(exist_ok=True)
    with open(cases.golden_path(name), "w", encoding="utf-8") as file:
        for line in [header, *lines]:
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
    sizes = [len(line["prompt_token_ids"]) for line in lines]
    print(json.dumps(header), f"prompt tokens {min(sizes)}..{max(sizes)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", help="default: all small models")
    parser.add_argument("--models-dir", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.models or make_models.MODELS:
            if name in cases.REAL_MODELS:
                if options.models_dir is None:
                    parser.error(f"{name} needs --models-dir")
                make(name, options.models_dir / f"{name}-hf")
            else:
                make(name, make_models.make_model(scratch, name))


if __name__ == "__main__":
    main()
