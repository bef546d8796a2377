"""Writes data/fusion/MODEL.jsonl: what Hugging Face in float32 answers when the per-paraphrase
prompts run in lock-step, each in a sequence of its own. To be run by hand when fusion_cases.py
changes, with a Python that has requirements.txt:
  make_fusion_goldens.py MODEL ... [--models-dir DIR]
"""

import argparse
import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers

import fusion_cases
import hf_decode
import parity
import reference


class Member:
    """One per-paraphrase prompt with its cache."""

    def __init__(self, model, token_ids):
        self._model = model
        self._cache = transformers.DynamicCache(config=model.config)
        self._next = token_ids

    def logprobs(self):
        """Of the next token."""
        output = self._model(input_ids=torch.tensor([self._next]), past_key_values=self._cache,
                             use_cache=True, logits_to_keep=1)
        return torch.log_softmax(output.logits[0, -1].double(), dim=-1).numpy()

    def append(self, token_id):
        self._next = [token_id]


@torch.inference_mode()
def answer(model, encoder, prompt, method):
    """The fused greedy answer, whatever its tokens are."""
    paraphrases = fusion_cases.groups_of(prompt)
    members = [Member(model, reference.encode_prompt(fusion_cases.paraphrase_prompt(prompt, paraphrase),
                                                     encoder).token_ids)
               for paraphrase in paraphrases]
    weights = fusion_cases.weights_of(method, len(members))
    golden = {"id": prompt["id"], "weights": weights, "token_ids": [], "logprobs": [],
              "margins": [], "member_logprobs": []}
    for _ in range(fusion_cases.NEW_TOKENS):
        rows = np.stack([member.logprobs() for member in members])
        fused = fusion_cases.fuse(method, rows, weights)
        second, best = np.argsort(fused)[-2:]
        golden["token_ids"].append(int(best))
        golden["logprobs"].append(round(float(fused[best]), 7))
        golden["margins"].append(round(float(fused[best] - fused[second]), 7))
        golden["member_logprobs"].append([round(float(row[best]), 7) for row in rows])
        for member in members:
            member.append(int(best))
    return golden


def write(name, folder):
    model = hf_decode.load(folder)
    encoder = reference.Encoder(folder / "tokenizer.json")
    answers = [answer(model, encoder, *case) for case in fusion_cases.cases_of(name)]
    path = fusion_cases.golden_path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in answers), encoding="utf-8")
    print(f"{path.name}: {len(answers)} answers", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--models-dir", type=pathlib.Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in parity.model_folders(options.models, options.models_dir,
                                                 scratch).items():
            write(name, folder)


if __name__ == "__main__":
    main()
