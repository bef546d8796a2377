"""Hugging Face's ways to run an evaluation: batches of padded prompts, and no KV cache at all.

Batch 1 with a cache is tests/golden/hf_decode.greedy. Every way gets the 4D additive mask of each prompt's rule and decodes greedily. Needs torch, transformers.
"""

import pathlib
import sys

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
sys.path.insert(0, str(GOLDEN))

import numpy as np  # noqa: E402  (the path comes first)
import torch  # noqa: E402
import transformers  # noqa: E402

import hf_decode  # noqa: E402
import reference  # noqa: E402


@torch.inference_mode()
def greedy_recomputed(model, encoded, policy, count):
    """The founding method: each token from a pass over everything before it."""
    groups, positions = reference.extend(encoded, policy, count)
    visible = reference.visibility(groups, encoded.visible)
    tokens = list(encoded.token_ids)
    for _ in range(count):
        size = len(tokens)
        logits = hf_decode.forward(model, tokens, positions[:size], visible[:size, :size])
        tokens.append(int(logits[-1].argmax()))
    return tokens[len(encoded.token_ids):]


class _PaddedBatch:
    """Prompts aligned at their ends: padding stands in front, and nobody sees it but itself."""

    def __init__(self, prompts, policies, count, dtype):
        self.width = max(len(prompt.token_ids) for prompt in prompts)
        columns = self.width + count
        self.ids = torch.zeros((len(prompts), self.width), dtype=torch.long)
        self.positions = torch.zeros((len(prompts), columns), dtype=torch.long)
        mask = np.zeros((len(prompts), columns, columns), dtype=bool)
        for row, (prompt, policy) in enumerate(zip(prompts, policies)):
            pad = self.width - len(prompt.token_ids)
            groups, positions = reference.extend(prompt, policy, count)
            self.ids[row, pad:] = torch.tensor(prompt.token_ids)
            self.positions[row, pad:] = torch.tensor(positions)
            mask[row, pad:, pad:] = reference.visibility(groups, prompt.visible)
            mask[row, range(pad), range(pad)] = True
        self.mask = torch.zeros(mask.shape, dtype=dtype)
        self.mask.masked_fill_(~torch.from_numpy(mask), torch.finfo(dtype).min)
        self.mask = self.mask[:, None]


@torch.inference_mode()
def greedy_padded(model, prompts, policies, count):
    """Token ids of each prompt of one batch, with a KV cache."""
    batch = _PaddedBatch(prompts, policies, count, model.dtype)
    cache = transformers.DynamicCache(config=model.config)
    begin, ids = 0, batch.ids
    columns = []
    for step in range(count):
        end = batch.width + step
        logits = model(input_ids=ids, position_ids=batch.positions[:, begin:end],
                       attention_mask=batch.mask[:, :, begin:end, :end], past_key_values=cache,
                       use_cache=True, logits_to_keep=1).logits
        ids = logits[:, -1].argmax(-1, keepdim=True)
        columns.append(ids)
        begin = end
    return torch.cat(columns, dim=1).tolist()
