"""Greedy decoding of structured prompts on Hugging Face eager attention with a 4D additive mask.

It turns what reference.py says into calls of `forward` and decides nothing about tokens, groups or
positions itself. Needs torch and transformers.
"""

import dataclasses

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
    assert set(layer_types) == {"full_attention"}, layer_types
    return model.eval()


def eos_ids(model):
    ids = model.generation_config.eos_token_id
    return set(ids if isinstance(ids, list) else [ids])


def additive_mask(visible, dtype):
    """Boolean [queries, keys] to [1, 1, queries, keys]: 0 where visible, else the least value."""
    mask = torch.zeros(visible.shape, dtype=dtype)
    mask.masked_fill_(~torch.from_numpy(visible), torch.finfo(dtype).min)
    return mask[None, None]


def forward(model, token_ids, positions, visible, cache=None, keep=1):
    """Raw logits [keep, vocabulary] of the last `keep` of `token_ids`; `visible` [queries, keys]
    says which keys each of them sees."""
    output = model(input_ids=torch.tensor([token_ids]), position_ids=torch.tensor([positions]),
                   attention_mask=additive_mask(visible, model.dtype),
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
    cache = transformers.DynamicCache(config=model.config)
    decoded = Decoded([], [], [])
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
    rows = forward(model, tokens, positions, visible, keep=len(generated) + 1)[:-1]
    logprobs = torch.log_softmax(rows.double(), dim=-1)
    return logprobs[range(len(generated)), generated].tolist()
