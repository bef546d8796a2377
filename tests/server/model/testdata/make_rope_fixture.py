"""Writes rope.json: the rotary frequencies that transformers computes for configs in every spelling.

Run by hand when a rope type is added: python3 make_rope_fixture.py (needs torch and transformers).
Each entry: config.json, the length of the prompt, inv_freq as float32, the attention factor.
"""

import json
import pathlib

import torch
import transformers

SMALL = {"model_type": "llama", "hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 4,
         "max_position_embeddings": 4096}
QWEN3 = {"model_type": "qwen3", "hidden_size": 256, "num_attention_heads": 4,
         "num_key_value_heads": 4, "head_dim": 128,
         "max_position_embeddings": 131072, "rope_theta": 1000000}
CASES = {
    "SmolLM2": {**SMALL, "rope_theta": 100000},
    "Qwen3": {**QWEN3},
    "head_dim 100": {**SMALL, "hidden_size": 400},
    "head_dim 2": {**SMALL, "hidden_size": 8},
    "null": {**SMALL, "rope_scaling": None, "rope_theta": 500000},
    "linear, old": {**SMALL, "rope_theta": 100000, "rope_scaling": {"type": "linear", "factor": 4}},
    "linear, new": {**SMALL, "rope_parameters": {"rope_type": "linear", "factor": 2.5,
                                                 "rope_theta": 20000.0}},
    "llama3": {**SMALL, "head_dim": 128, "rope_theta": 500000, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}},
    "yarn, Qwen2.5": {**SMALL, "model_type": "qwen2", "max_position_embeddings": 32768,
                      "rope_theta": 1000000, "rope_scaling": {
                          "factor": 4.0, "original_max_position_embeddings": 32768,
                          "type": "yarn"}},
    "yarn, DeepSeek-R1-0528-Qwen3": {**QWEN3, "rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768,
        "attn_factor": 0.8782488562869419}},
    "yarn, DeepSeek": {**SMALL, "rope_scaling": {
        "type": "yarn", "factor": 40, "original_max_position_embeddings": 1024, "beta_fast": 32,
        "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 1.0}},
    "yarn, one mscale": {**SMALL, "rope_scaling": {
        "type": "yarn", "factor": 40, "original_max_position_embeddings": 1024, "mscale": 0.707,
        "mscale_all_dim": 0}},
    "yarn, attention_factor": {**SMALL, "rope_parameters": {
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512,
        "attention_factor": 0.9, "beta_fast": 24.0, "beta_slow": 2.0, "truncate": False,
        "rope_theta": 50000.0}},
    "yarn, no factor": {**SMALL, "rope_scaling": {"type": "yarn", "factor": None,
                                                  "original_max_position_embeddings": 1024}},
    "yarn, no length": {**SMALL, "rope_scaling": {"type": "yarn", "factor": 2.0}},
    "yarn, length outside": {**SMALL, "original_max_position_embeddings": 2048, "rope_scaling": {
        "type": "yarn", "factor": 2.0, "original_max_position_embeddings": 512}},
    "dynamic, short": {**SMALL, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "dynamic, just beyond": {**SMALL, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "dynamic, twice": {**SMALL, "rope_theta": 500000,
                       "rope_parameters": {"rope_type": "dynamic", "factor": 4.0}},
}
LENGTHS = {"dynamic, short": 100, "dynamic, just beyond": 4097, "dynamic, twice": 8192}


def main():
    entries = []
    for name, config in CASES.items():
        loaded = transformers.AutoConfig.for_model(**config)
        model = getattr(transformers.models, loaded.model_type)
        family = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[loaded.model_type]
        module = getattr(getattr(model, f"modeling_{loaded.model_type}"),
                         f"{family}RotaryEmbedding")(loaded)
        length = LENGTHS.get(name, 0)
        if length:  # As the first forward of a prompt of so many tokens does.
            module(torch.zeros(1), torch.arange(length)[None])
        entries.append({"name": name, "config": config, "length": length,
                        "attention_factor": float(module.attention_scaling),
                        "inv_freq": [float(value) for value in module.inv_freq]})
    path = pathlib.Path(__file__).parent / "rope.json"
    path.write_text("[" + ",\n".join(json.dumps(entry) for entry in entries) + "]\n",
                    encoding="utf-8")


if __name__ == "__main__":
    main()
