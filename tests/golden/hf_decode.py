"""Greedy decoding of structured prompts on Hugging Face eager attention with a 4D additive mask.

It turns what reference.py says into calls of `forward` and decides nothing about tokens, groups or
positions itself. Needs torch and transformers.
"""

import contextlib
import dataclasses

import numpy as np
import torch
import transformers

import reference


@dataclasses.dataclass
class Decoded:
    """Generated tokens and what the model thought of them; one entry per token."""

    token_ids: list
    logprobs: list
    margins: list  # Best log-probability minus the second best.


def load(folder, dtype="float32"):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="eager")
    assert model.config._attn_implementation == "eager"
    layer_types = getattr(model.config, "layer_types", None) or ["full_attention"]
    assert set(layer_types) <= {"full_attention", "sliding_attention"}, layer_types
    return model.eval()


def eos_ids(model):
    ids = model.generation_config.eos_token_id
    return set(ids if isinstance(ids, list) else [ids])


def additive_mask(visible, dtype):
    """Boolean [queries, keys] to [1, 1, queries, keys]: 0 where visible, else the least value."""
    mask = torch.zeros(visible.shape, dtype=dtype)
    mask.masked_fill_(~torch.from_numpy(visible), torch.finfo(dtype).min)
    return mask[None, None]


def attention_masks(model, visible):
    """What `forward` of the model takes: one mask for all layers, or one for each type of layer.
    The last query is at the index of the last key."""
    full = additive_mask(visible, model.dtype)
    window = getattr(model.config, "sliding_window", None)
    if window is None:
        return full
    queries, keys = visible.shape
    ahead = np.arange(keys - queries, keys)[:, None] - np.arange(keys)[None, :]
    windowed = additive_mask(visible & (ahead < window), model.dtype)
    if getattr(model.config, "layer_types", None) is None:
        return windowed
    return {"full_attention": full, "sliding_attention": windowed}


@contextlib.contextmanager
def rope_of_prompt(model, positions):
    """A dynamic rope has the frequencies of the first forward of a prompt at these positions, and
    keeps them."""
    rotary = model.model.rotary_emb
    if rotary.rope_type != "dynamic":
        yield
        return
    rotary.max_seq_len_cached = rotary.original_max_seq_len
    rotary.inv_freq = rotary.original_inv_freq.clone()
    rotary(torch.zeros(1), torch.tensor([positions]))
    rotary.rope_type = "held"
    try:
        yield
    finally:
        rotary.rope_type = "dynamic"


def forward(model, token_ids, positions, visible, cache=None, keep=1):
    """Raw logits [keep, vocabulary] of the last `keep` of `token_ids`; `visible` [queries, keys]
    says which keys each of them sees where no window is."""
    output = model(input_ids=torch.tensor([token_ids]), position_ids=torch.tensor([positions]),
                   attention_mask=attention_masks(model, visible),
                   past_key_values=cache, use_cache=cache is not None, logits_to_keep=keep)
    return output.logits[0]


def _judge(logits, decoded):
    """Appends the best token of one row of logits."""
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    best = torch.topk(logprobs, 2)
    decoded.token_ids.append(int(best.indices[0]))
    decoded.logprobs.append(float(best.values[0]))
    decoded.margins.append(float(best.values[0] - best.values[1]))


@torch.inference_mode()
def greedy(model, encoded, policy, count, stop_ids=frozenset()):
    """Decodes with a KV cache; ends early only at one of stop_ids."""
    groups, positions = reference.extend(encoded, policy, count)
    visible = reference.visibility(groups, encoded.visible)
    size = len(encoded.token_ids)
    cache = transformers.DynamicCache()  # Without a config it keeps what windows have passed.
    decoded = Decoded([], [], [])
    with rope_of_prompt(model, positions[:size]):
        logits = forward(model, encoded.token_ids, positions[:size], visible[:size, :size], cache)
        _judge(logits[-1], decoded)
        for at in range(size, size + count - 1):
            if decoded.token_ids[-1] in stop_ids:
                break
            logits = forward(model, decoded.token_ids[-1:], positions[at:at + 1],
                             visible[at:at + 1, :at + 1], cache)
            _judge(logits[-1], decoded)
    return decoded


@torch.inference_mode()
def recompute(model, encoded, policy, generated):
    """One pass over prompt + `generated` without a cache: what greedy decoding by recomputing the
    whole sequence would choose at every step. A row of logits depends on earlier tokens only, so
    one pass holds all the steps."""
    groups, positions = reference.extend(encoded, policy, len(generated))
    tokens = encoded.token_ids + generated
    visible = reference.visibility(groups, encoded.visible)
    with rope_of_prompt(model, positions[:len(encoded.token_ids)]):
        logits = forward(model, tokens, positions, visible, keep=len(generated) + 1)
    decoded = Decoded([], [], [])
    for row in logits[:-1]:
        _judge(row, decoded)
    return decoded


@torch.inference_mode()
def forced_logprobs(model, encoded, policy, generated):
    """Log-probability of each generated token, teacher-forced in one pass."""
    groups, positions = reference.extend(encoded, policy, len(generated))
    tokens = encoded.token_ids + generated
    visible = reference.visibility(groups, encoded.visible)
    with rope_of_prompt(model, positions[:len(encoded.token_ids)]):
        rows = forward(model, tokens, positions, visible, keep=len(generated) + 1)[:-1]
    logprobs = torch.log_softmax(rows.double(), dim=-1)
    return logprobs[range(len(generated)), generated].tolist()
