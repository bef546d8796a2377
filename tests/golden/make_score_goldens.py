"""Writes data/scores/MODEL.jsonl: what Hugging Face eager in float32 says of every continuation of
score_cases.py. Run by hand when these change, with a Python that has requirements.txt:
  make_score_goldens.py MODEL ... [--models-dir DIR]
One pass over prompt and continuation with the 4D mask, no cache.
"""

import argparse
import json
import pathlib
import tempfile

import torch

import cases
import hf_decode
import parity
import reference
import score_cases


@torch.inference_mode()
def score(model, joined):
    """{"token_ids", "logprobs", "is_greedy", "margin"}: the least distance of the best token's
    log-probability from the second's."""
    encoded, border = joined.encoded, joined.border
    ids = encoded.token_ids[border:]
    size = len(encoded.token_ids) - 1  # The last token predicts nothing that is asked.
    visible = reference.visibility(encoded.groups, encoded.visible)[:size, :size]
    with hf_decode.rope_of_prompt(model, encoded.positions[:border]):
        rows = hf_decode.forward(model, encoded.token_ids[:size], encoded.positions[:size],
                                 visible, keep=len(ids))
    logprobs = torch.log_softmax(rows.double(), dim=-1)
    best = torch.topk(logprobs, 2)
    return {"token_ids": ids,
            "logprobs": [round(value, 7) for value in logprobs[range(len(ids)), ids].tolist()],
            "is_greedy": best.indices[:, 0].tolist() == ids,
            "margin": float((best.values[:, 0] - best.values[:, 1]).min())}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--models-dir", type=pathlib.Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = parity.model_folders(options.models, options.models_dir, scratch)
        for name, folder in folders.items():
            model = hf_decode.load(folder)
            encoder = reference.Encoder(folder / "tokenizer.json")
            empty = (None if name in cases.REAL_MODELS
                     else score_cases.empty_prompt_token(name))
            path = score_cases.golden_path(name)
            path.parent.mkdir(exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                for case in score_cases.cases_of(name):
                    scores = [score(model, score_cases.join(case, continuation, encoder, empty))
                              for continuation in case["continuations"]]
                    file.write(json.dumps({"id": case["id"], "scores": scores}) + "\n")
            print(f"{path.name}: {len(score_cases.cases_of(name))} prompts", flush=True)


if __name__ == "__main__":
    main()
