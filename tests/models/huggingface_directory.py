"""Turns a GGUF file into the Hugging Face directory that the model was converted from.

The goldens and the parity tests read what it writes:
    python huggingface_directory.py IN.gguf OUT_FOLDER
Weights are dequantised to float32 and rounded to bfloat16, nearest even, norms too. Knows the two
architectures of the tests; anything else is refused. Never needs torch.
"""

import functools
import json
import pathlib
import sys

import gguf
import numpy as np

import tokenizer_json

ARCHITECTURES = {
    "llama": {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
              "attention_bias": False, "mlp_bias": False},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},
}

# Which ids end a text, by tokenizer family: the published generation_config.json lists more than
# the single id that GGUF has room for.
EOS_TOKEN_IDS = {"smollm": 2, "qwen2": [151645, 151643]}

LAYER_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def huggingface_name(name: str) -> str:
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight"""
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{LAYER_NAMES[parts[2]]}.{parts[3]}"
    return f"{TOP_NAMES[parts[0]]}.{parts[1]}"


def unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """GGUF's llama pairs rotary dimensions (0, 1), (2, 3), ...; Hugging Face (0, d/2), (1, d/2+1)."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 to the upper 16 bits, round to nearest even. Infinities and NaN do not occur."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_safetensors(path: pathlib.Path, shapes: dict, loads: dict) -> None:
    """One tensor in memory at a time."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as out:
        out.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in shapes:
            out.write(loads[name]().tobytes())


def loaders(reader: gguf.GGUFReader, config: dict) -> dict:
    """Hugging Face name -> function that returns the tensor's bfloat16 bits."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}

    def load(tensor):
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        kind = tensor.name.split(".")[-2]
        if config["model_type"] == "llama" and kind in heads:
            values = unpermute(values, heads[kind])
        return to_bfloat16(values)

    return {huggingface_name(tensor.name): functools.partial(load, tensor)
            for tensor in reader.tensors}


def shortest_float32(value: float) -> float:
    """The decimal that was meant: 9.999999747378752e-06, read from a float32, is 1e-05."""
    return float(str(np.float32(value)))


def scalars(reader: gguf.GGUFReader) -> dict:
    """The metadata without its arrays: those are vocabularies, and slow to read."""
    return {key: field.contents() for key, field in reader.fields.items() if len(field.data) == 1}


def model_config(metadata: dict, shapes: dict) -> dict:
    """shapes: of the tensors, by their Hugging Face names."""
    architecture = metadata["general.architecture"]
    if architecture not in ARCHITECTURES:
        raise SystemExit(f"architecture {architecture}: known are {', '.join(ARCHITECTURES)}")

    def of(key):
        return metadata[f"{architecture}.{key}"]

    eos = EOS_TOKEN_IDS[metadata["tokenizer.ggml.pre"]]
    return ARCHITECTURES[architecture] | {
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": eos if isinstance(eos, int) else eos[0],
        "hidden_act": "silu",
        "hidden_size": of("embedding_length"),
        "intermediate_size": of("feed_forward_length"),
        "max_position_embeddings": of("context_length"),
        "num_attention_heads": of("attention.head_count"),
        "num_hidden_layers": of("block_count"),
        "num_key_value_heads": of("attention.head_count_kv"),
        "rms_norm_eps": shortest_float32(of("attention.layer_norm_rms_epsilon")),
        "rope_theta": shortest_float32(of("rope.freq_base")),
        "tie_word_embeddings": "lm_head.weight" not in shapes,
        "torch_dtype": "bfloat16",
        "vocab_size": shapes["model.embed_tokens.weight"][0],
    }


def generation_config(metadata: dict) -> dict:
    return {
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": EOS_TOKEN_IDS[metadata["tokenizer.ggml.pre"]],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
    }


def convert(source: pathlib.Path, folder: pathlib.Path) -> None:
    reader = gguf.GGUFReader(source)
    metadata = scalars(reader)
    # GGUF lists the fastest dimension first.
    shapes = {huggingface_name(tensor.name): [int(size) for size in reversed(tensor.shape)]
              for tensor in reader.tensors}
    config = model_config(metadata, shapes)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(
        json.dumps(generation_config(metadata), indent=2) + "\n")
    tokenizer_json.write_tokenizer_json(str(source), str(folder / "tokenizer.json"))
    write_safetensors(folder / "model.safetensors", shapes, loaders(reader, config))


if __name__ == "__main__":
    convert(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
