"""Makes the small random models of the parity test as Hugging Face directories.

To run by hand: make_models.py OUT_DIR [NAME ...]. It writes the same bytes on every
machine: it uses numpy's RandomState, whose stream is frozen, and a safetensors writer of its own.
Needs numpy only, never torch.
"""

import hashlib
import json
import math
import pathlib
import shutil
import struct
import sys
import zlib

import numpy as np

TOKENIZERS = pathlib.Path(__file__).parent / "tokenizers"
LLAMA3_SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                  "high_freq_factor": 4.0, "original_max_position_embeddings": 128}

# vocabulary: padded past the tokenizer's, as published checkpoints do. style: old writes
# torch_dtype, rope_theta and rope_scaling; new writes dtype and rope_parameters. eos: every id
# divisible by eos_every ends a text too, so that some answers stop early. context: what the model
# says that it was trained for. windows: the keys of config.json that make sliding windows. turn:
# how the prompts' positions and tokenization begin to turn; without one, the model's place here.
DEFAULTS = {"layers": 3, "tied": False, "bias": False, "shards": 1, "style": "old",
            "theta": 10000.0, "scaling": None, "eos_every": 0, "dtype": "float32",
            "context": 2048, "windows": None, "turn": None, "experts": 0}
MODELS = {
    "llama2-gqa1-d64": dict(family="llama", tokenizer="llama2", hidden=256, heads=4, kv_heads=4,
                            head_dim=64, intermediate=512, vocabulary=2816, dtype="float16",
                            style="bare", layers=4),
    "llama2-gqa1-d80-sharded": dict(family="llama", tokenizer="llama2", hidden=240, heads=3,
                                    kv_heads=3, head_dim=80, intermediate=384, vocabulary=2816,
                                    shards=3, style="new"),
    "llama-gqa3-d80-bias-tied": dict(family="llama", tokenizer="gpt2", hidden=240, heads=3,
                                     kv_heads=1, head_dim=80, intermediate=400, vocabulary=2048,
                                     tied=True, bias=True, style="new", eos_every=24),
    "smollm2-gqa3-d64-tied": dict(family="llama", tokenizer="smollm2", hidden=192, heads=3,
                                  kv_heads=1, head_dim=64, intermediate=512, vocabulary=2048,
                                  tied=True, dtype="bfloat16", theta=100000.0, layers=4),
    "llama31-gqa4-d64": dict(family="llama", tokenizer="llama3", hidden=256, heads=4, kv_heads=1,
                             head_dim=64, intermediate=640, vocabulary=2560, dtype="bfloat16",
                             theta=500000.0, scaling=LLAMA3_SCALING),
    "llama32-gqa4-d128-tied": dict(family="llama", tokenizer="llama3", hidden=256, heads=4,
                                   kv_heads=1, head_dim=128, intermediate=512, vocabulary=2560,
                                   dtype="bfloat16", theta=500000.0, scaling=LLAMA3_SCALING,
                                   tied=True, shards=2, style="new"),
    "qwen2-gqa7-d64-tied": dict(family="qwen2", tokenizer="qwen2", hidden=448, heads=7, kv_heads=1,
                                head_dim=64, intermediate=512, vocabulary=2048, tied=True,
                                dtype="bfloat16", theta=1000000.0),
    "qwen2-gqa3-d96": dict(family="qwen2", tokenizer="qwen2", hidden=288, heads=3, kv_heads=1,
                           head_dim=96, intermediate=512, vocabulary=2048, theta=1000000.0,
                           style="new"),
    "qwen3-gqa3-d128": dict(family="qwen3", tokenizer="qwen3", hidden=192, heads=6, kv_heads=2,
                            head_dim=128, intermediate=384, vocabulary=3072, theta=1000000.0,
                            style="new"),
    "qwen3-gqa4-d96-tied": dict(family="qwen3", tokenizer="qwen3", hidden=160, heads=8, kv_heads=2,
                                head_dim=96, intermediate=320, vocabulary=3072, tied=True,
                                dtype="float16", theta=1000000.0, eos_every=24),
    # Mixtures of experts. plain: the layers of mlp_only_layers; stacked: all experts of a layer in
    # two tensors, as version 5 of transformers may store them.
    "qwen2moe-8of2": dict(family="qwen2_moe", tokenizer="qwen2", hidden=192, heads=3, kv_heads=1,
                          head_dim=64, intermediate=320, vocabulary=2048, theta=1000000.0,
                          experts=8, chosen=2, expert_size=96, shared=160, normalize=True,
                          style="new", stacked=True),
    "qwen2moe-60of4": dict(family="qwen2_moe", tokenizer="qwen2", hidden=192, heads=3, kv_heads=3,
                           head_dim=64, intermediate=320, vocabulary=2048, theta=1000000.0,
                           experts=60, chosen=4, expert_size=64, shared=256, normalize=False,
                           step=2, layers=4, shards=2, dtype="bfloat16", eos_every=24),
    "qwen3moe-60of8-tied": dict(family="qwen3_moe", tokenizer="qwen3", hidden=160, heads=8,
                                kv_heads=2, head_dim=64, intermediate=320, vocabulary=3072,
                                theta=1000000.0, experts=60, chosen=8, expert_size=80,
                                normalize=True, plain=[1], tied=True, dtype="bfloat16"),
    "qwen3moe-8of2": dict(family="qwen3_moe", tokenizer="qwen3", hidden=256, heads=4, kv_heads=2,
                          head_dim=128, intermediate=320, vocabulary=3072, theta=1000000.0,
                          experts=8, chosen=2, expert_size=128, normalize=False, plain=[0],
                          style="new", step=2, layers=5),
    # Windows shorter than a segment, and trained lengths shorter than a prompt.
    "mistral-gqa2-d32-window": dict(family="mistral", tokenizer="llama2", hidden=128, heads=4,
                                    kv_heads=2, head_dim=32, intermediate=256, vocabulary=2816,
                                    windows={"sliding_window": 20}, turn=0),
    "mistral-gqa2-d8": dict(family="mistral", tokenizer="llama2", hidden=96, heads=8, kv_heads=4,
                            head_dim=8, intermediate=256, vocabulary=2816, dtype="bfloat16",
                            windows={"sliding_window": None}, turn=1),
    "qwen2-gqa3-d64-window-yarn": dict(
        family="qwen2", tokenizer="qwen2", hidden=192, heads=3, kv_heads=1, head_dim=64,
        intermediate=320, vocabulary=2048, theta=1000000.0, context=32,
        windows={"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
        scaling={"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32}, turn=2),
    "qwen3-gqa2-d100-layer-types": dict(
        family="qwen3", tokenizer="qwen3", hidden=160, heads=4, kv_heads=2, head_dim=100,
        intermediate=320, vocabulary=3072, theta=1000000.0, style="new",
        windows={"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0,
                 "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        turn=3),
    "llama-gqa1-d100-dynamic": dict(family="llama", tokenizer="llama2", hidden=200, heads=2,
                                    kv_heads=2, head_dim=100, intermediate=320, vocabulary=2816,
                                    context=40, scaling={"type": "dynamic", "factor": 8.0},
                                    turn=4),
    "llama-gqa2-d256-yarn": dict(
        family="llama", tokenizer="llama3", hidden=128, heads=2, kv_heads=1, head_dim=256,
        intermediate=256, vocabulary=2560, context=1024, style="new",
        scaling={"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 32,
                 "mscale": 0.707, "mscale_all_dim": 1.0, "beta_fast": 16, "beta_slow": 2,
                 "truncate": False}, turn=5),
    "llama-gqa4-d4-linear": dict(family="llama", tokenizer="gpt2", hidden=64, heads=16, kv_heads=4,
                                 head_dim=4, intermediate=192, vocabulary=2048, bias=True,
                                 scaling={"type": "linear", "factor": 4.0}, turn=6),
}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM",
                 "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
                 "qwen2_moe": "Qwen2MoeForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM"}
BOS_AND_EOS = {"llama2": ("<s>", "</s>"), "gpt2": ("<|endoftext|>", "<|endoftext|>"),
               "smollm2": ("<|im_start|>", "<|im_end|>"),
               "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
               "qwen2": (None, "<|im_end|>"), "qwen3": (None, "<|im_end|>")}

# Gains of the weights, in units of 1 / sqrt(inputs). Sharp scores (query, key) and strong values
# make the mask matter; the head's gain keeps the best two tokens apart.
GAINS = {"q_proj": 1.7, "k_proj": 1.7, "v_proj": 1.5, "o_proj": 1.5, "gate_proj": 1.2,
         "up_proj": 1.2, "down_proj": 1.2, "lm_head": 3.0, "gate_up_proj": 1.2,
         "gate": 2.0, "shared_expert_gate": 1.0}  # The router is sharp: its choice matters.


def shape_of(name):
    return {**DEFAULTS, **MODELS[name]}


def _mlp_shapes(prefix, hidden, inner):
    return {f"{prefix}.gate_proj": (inner, hidden), f"{prefix}.up_proj": (inner, hidden),
            f"{prefix}.down_proj": (hidden, inner)}


def has_mixture(shape, layer):
    return (shape["experts"] > 0 and layer not in shape.get("plain", ())
            and (layer + 1) % shape.get("step", 1) == 0)


def _mixture_shapes(shape):
    hidden, inner, experts = shape["hidden"], shape["expert_size"], shape["experts"]
    shapes = {"mlp.gate": (experts, hidden)}
    if shape["family"] == "qwen2_moe":
        shapes["mlp.shared_expert_gate"] = (1, hidden)
        shapes.update(_mlp_shapes("mlp.shared_expert", hidden, shape["shared"]))
    for expert in range(experts):
        shapes.update(_mlp_shapes(f"mlp.experts.{expert}", hidden, inner))
    return shapes


def tensor_shapes(shape):
    hidden, inner = shape["hidden"], shape["intermediate"]
    query = shape["heads"] * shape["head_dim"]
    key = shape["kv_heads"] * shape["head_dim"]
    attention = {"self_attn.q_proj": (query, hidden), "self_attn.k_proj": (key, hidden),
                 "self_attn.v_proj": (key, hidden), "self_attn.o_proj": (hidden, query)}
    biased = {*attention, *_mlp_shapes("mlp", hidden, inner)} if shape["bias"] else set()
    if shape["family"] in ("qwen2", "qwen2_moe"):
        biased = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}
    shapes = {"model.embed_tokens.weight": (shape["vocabulary"], hidden)}
    for layer in range(shape["layers"]):
        prefix = f"model.layers.{layer}."
        mlp = (_mixture_shapes(shape) if has_mixture(shape, layer)
               else _mlp_shapes("mlp", hidden, inner))
        for part, size in {**attention, **mlp}.items():
            shapes[f"{prefix}{part}.weight"] = size
            if part in biased:
                shapes[f"{prefix}{part}.bias"] = size[:1]
        if shape["family"] in ("qwen3", "qwen3_moe"):
            shapes[f"{prefix}self_attn.q_norm.weight"] = (shape["head_dim"],)
            shapes[f"{prefix}self_attn.k_norm.weight"] = (shape["head_dim"],)
        shapes[f"{prefix}input_layernorm.weight"] = (hidden,)
        shapes[f"{prefix}post_attention_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    if not shape["tied"]:
        shapes["lm_head.weight"] = (shape["vocabulary"], hidden)
    return shapes


def _random_tensor(name, size, shape, random):
    values = random.standard_normal(size)
    part = name.split(".")[-2]
    if name.endswith(".bias"):
        return 0.3 * values
    if part in ("q_norm", "k_norm"):
        return 1.6 * (1.0 + 0.2 * values)
    if part.endswith("norm"):
        return 1.0 + 0.2 * values
    if part == "embed_tokens":
        # Tied, it is the head as well.
        return values * (GAINS["lm_head"] / math.sqrt(shape["hidden"]) if shape["tied"] else 1.0)
    return values * GAINS[part] / math.sqrt(size[1])


def to_bytes(values, dtype):
    values = values.astype("<f4")
    if dtype == "float32":
        return values.tobytes()
    if dtype == "float16":
        return values.astype("<f2").tobytes()
    # bfloat16, to nearest, ties to even; no value here overflows.
    bits = values.view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def _write_safetensors(path, tensors, dtype):
    """tensors: {name: (shape, bytes)}, written in the order given."""
    label = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]
    header = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (size, data) in tensors.items():
        header[name] = {"dtype": label, "shape": list(size),
                        "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, data in tensors.values():
            file.write(data)


def random_tensors(name):
    """{tensor: float64 values} of a model, in the order of its files."""
    shape = shape_of(name)
    random = np.random.RandomState(zlib.crc32(name.encode()))
    return {tensor: _random_tensor(tensor, size, shape, random)
            for tensor, size in tensor_shapes(shape).items()}


def _stack_experts(tensors, shape):
    """As version 5 of transformers keeps them: gate_up_proj and down_proj of a layer's experts."""
    stacked = {name: values for name, values in tensors.items() if ".mlp.experts." not in name}
    for layer in range(shape["layers"]):
        if not has_mixture(shape, layer):
            continue
        prefix = f"model.layers.{layer}.mlp.experts."
        gate, up, down = (np.stack([tensors[f"{prefix}{expert}.{part}_proj.weight"]
                                    for expert in range(shape["experts"])])
                          for part in ("gate", "up", "down"))
        stacked[f"{prefix}gate_up_proj"] = np.concatenate([gate, up], axis=1)
        stacked[f"{prefix}down_proj"] = down
    return stacked


def _write_weights(folder, name, shape):
    values = random_tensors(name)
    if shape.get("stacked"):
        values = _stack_experts(values, shape)
    tensors = {tensor: (array.shape, to_bytes(array, shape["dtype"]))
               for tensor, array in values.items()}
    if shape["shards"] == 1:
        _write_safetensors(folder / "model.safetensors", tensors, shape["dtype"])
        return
    count = shape["shards"]
    names = list(tensors)
    weight_map = {}
    for shard in range(count):
        file = f"model-{shard + 1:05d}-of-{count:05d}.safetensors"
        part = names[shard * len(names) // count:(shard + 1) * len(names) // count]
        _write_safetensors(folder / file, {n: tensors[n] for n in part}, shape["dtype"])
        weight_map.update(dict.fromkeys(part, file))
    total = sum(len(data) for _, data in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(folder / "model.safetensors.index.json", index)


def _write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _special_ids(shape):
    with open(TOKENIZERS / shape["tokenizer"] / "tokenizer.json", encoding="utf-8") as file:
        added = {entry["content"]: entry["id"] for entry in json.load(file)["added_tokens"]}
    bos, eos = BOS_AND_EOS[shape["tokenizer"]]
    eos_ids = [added[eos]]
    if shape["eos_every"]:
        eos_ids += range(300, shape["vocabulary"], shape["eos_every"])
    return added.get(bos), eos_ids


def _config(shape):
    bos, eos_ids = _special_ids(shape)
    config = {
        "architectures": [ARCHITECTURES[shape["family"]]],
        "bos_token_id": bos,
        "eos_token_id": eos_ids[0],
        "hidden_act": "silu",
        "hidden_size": shape["hidden"],
        "initializer_range": 0.02,
        "intermediate_size": shape["intermediate"],
        "max_position_embeddings": shape["context"],
        "model_type": shape["family"],
        "num_attention_heads": shape["heads"],
        "num_hidden_layers": shape["layers"],
        "num_key_value_heads": shape["kv_heads"],
        "rms_norm_eps": 1e-5 if shape["family"] in ("llama", "mistral") else 1e-6,
        "tie_word_embeddings": shape["tied"],
        "use_cache": True,
        "vocab_size": shape["vocabulary"],
    }
    if shape["style"] == "new":
        config["dtype"] = shape["dtype"]
        config["rope_parameters"] = {"rope_theta": shape["theta"],
                                     **(shape["scaling"] or {"rope_type": "default"})}
    else:
        config["torch_dtype"] = shape["dtype"]
    if shape["style"] == "old":
        config["rope_theta"] = shape["theta"]
        config["rope_scaling"] = shape["scaling"]
    if shape["family"] == "llama":
        config.update(attention_bias=shape["bias"], mlp_bias=shape["bias"], pretraining_tp=1)
    elif shape["windows"] is not None:
        config.update(shape["windows"])
    else:
        config.update(use_sliding_window=False, sliding_window=None, max_window_layers=2)
    if shape["family"] in ("qwen3", "qwen3_moe"):
        config.update(attention_bias=False)
    if shape["experts"]:
        config.update(num_experts=shape["experts"], num_experts_per_tok=shape["chosen"],
                      moe_intermediate_size=shape["expert_size"],
                      norm_topk_prob=shape["normalize"], mlp_only_layers=shape.get("plain", []),
                      decoder_sparse_step=shape.get("step", 1))
    if shape["family"] == "qwen2_moe":
        config["shared_expert_intermediate_size"] = shape["shared"]
    if shape["style"] == "new" or shape["hidden"] != shape["heads"] * shape["head_dim"]:
        config["head_dim"] = shape["head_dim"]
    return config


def make_model(root, name):
    """Writes ROOT/NAME and returns it."""
    shape = shape_of(name)
    folder = pathlib.Path(root) / name
    folder.mkdir(parents=True, exist_ok=True)
    bos, eos_ids = _special_ids(shape)
    _write_weights(folder, name, shape)
    shutil.copyfile(TOKENIZERS / shape["tokenizer"] / "tokenizer.json", folder / "tokenizer.json")
    generation = {"bos_token_id": bos, "eos_token_id": eos_ids if len(eos_ids) > 1 else eos_ids[0],
                  "do_sample": True, "temperature": 0.6, "top_p": 0.9}
    _write_json(folder / "generation_config.json", generation)
    _write_json(folder / "config.json", _config(shape))
    return folder


def weights_digest(folder):
    """SHA-256 over the safetensors files, in order of their names."""
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with open(path, "rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: make_models.py OUT_DIR [NAME ...]")
    for name in sys.argv[2:] or MODELS:
        folder = make_model(sys.argv[1], name)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{folder}  {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
