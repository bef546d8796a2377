"""Writes a small random model as llama.cpp's converter lays it out: metadata, vocabulary, tensors.

Only models with Qwen's tokenizer and no rope scaling. Needs numpy and PyPI `gguf`; by hand:
write_gguf.py OUT.gguf MODEL [F32|Q8_0].
"""

import json
import sys

import gguf
import numpy as np

import make_models

ARCHITECTURES = {"qwen2": "qwen2", "qwen3": "qwen3", "qwen2_moe": "qwen2moe",
                 "qwen3_moe": "qwen3moe"}
NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "mlp.gate": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
         "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
         "mlp.shared_expert.up_proj": "ffn_up_shexp",
         "mlp.shared_expert.down_proj": "ffn_down_shexp"}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight",
         "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


def _stored(values, dtype):
    """What a folder of `dtype` holds, as float32."""
    data = make_models.to_bytes(values, dtype)
    if dtype == "bfloat16":
        bits = np.frombuffer(data, "<u2").astype("<u4") << 16
        return bits.view("<f4").reshape(values.shape)
    code = {"float32": "<f4", "float16": "<f2"}[dtype]
    return np.frombuffer(data, code).astype("<f4").reshape(values.shape)


def _tensors(name):
    """{GGUF's name: float32 values}; the experts of a layer are stacked."""
    shape = make_models.shape_of(name)
    named, experts = {}, {}
    for tensor, values in make_models.random_tensors(name).items():
        values = _stored(values, shape["dtype"])
        if tensor in WHOLE:
            named[WHOLE[tensor]] = values
            continue
        layer, _, rest = tensor.removeprefix("model.layers.").partition(".")
        part, _, kind = rest.rpartition(".")
        if part.startswith("mlp.experts."):
            matrix = part.rpartition(".")[2].removesuffix("_proj")
            experts.setdefault(f"blk.{layer}.ffn_{matrix}_exps.{kind}", []).append(values)
        else:
            named[f"blk.{layer}.{NAMES[part]}.{kind}"] = values.squeeze()
    return {**named, **{tensor: np.stack(parts) for tensor, parts in experts.items()}}


def _add_shape(writer, shape):
    writer.add_block_count(shape["layers"])
    writer.add_context_length(2048)
    writer.add_embedding_length(shape["hidden"])
    writer.add_feed_forward_length(shape["intermediate"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_key_length(shape["head_dim"])
    writer.add_value_length(shape["head_dim"])
    writer.add_rope_freq_base(shape["theta"])
    writer.add_layer_norm_rms_eps(1e-6)
    if not shape["experts"]:
        return
    writer.add_expert_count(shape["experts"])
    writer.add_expert_used_count(shape["chosen"])
    writer.add_expert_feed_forward_length(shape["expert_size"])
    if "shared" in shape:
        writer.add_expert_shared_feed_forward_length(shape["shared"])
    if shape["normalize"] != (shape["family"] == "qwen3_moe"):  # Else the architecture says it.
        writer.add_expert_weights_norm(shape["normalize"])


def _add_vocabulary(writer, shape):
    path = make_models.TOKENIZERS / shape["tokenizer"] / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    size = shape["vocabulary"]
    tokens = [f"[PAD{number}]" for number in range(size)]
    types = [gguf.TokenType.UNUSED] * size
    for token, number in tokenizer["model"]["vocab"].items():
        tokens[number], types[number] = token, gguf.TokenType.NORMAL
    for entry in tokenizer["added_tokens"]:
        tokens[entry["id"]] = entry["content"]
        types[entry["id"]] = (gguf.TokenType.CONTROL if entry["special"]
                              else gguf.TokenType.USER_DEFINED)
    merges = [pair if isinstance(pair, str) else " ".join(pair)
              for pair in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokens.index(make_models.BOS_AND_EOS[shape["tokenizer"]][1]))
    writer.add_add_bos_token(False)


def write_gguf(path, name, form="F32"):
    """form: of the matrices that llama.cpp quantizes; norms, biases and routers stay F32."""
    shape = make_models.shape_of(name)
    writer = gguf.GGUFWriter(path, ARCHITECTURES[shape["family"]])
    _add_shape(writer, shape)
    _add_vocabulary(writer, shape)
    kind = gguf.GGMLQuantizationType[form]
    for tensor, values in _tensors(name).items():
        if kind == gguf.GGMLQuantizationType.F32 or values.ndim == 1 or "_inp" in tensor:
            writer.add_tensor(tensor, values)
        else:
            writer.add_tensor(tensor, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: write_gguf.py OUT.gguf MODEL [F32|Q8_0]")
    write_gguf(*sys.argv[1:])
