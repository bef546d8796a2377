"""The arithmetic of huggingface_directory.py, and a safetensors file as PyPI safetensors reads it."""

import json
import struct

import numpy as np
import pytest
import safetensors

import huggingface_directory as directory


def test_bfloat16_rounds_to_nearest_even():
    # bfloat16 keeps 7 bits of fraction: 1 + 2**-8 lies half way between two of its values.
    cases = [(1.0, 0x3F80), (1 + 2**-8, 0x3F80), (1 + 2**-7, 0x3F81), (1 + 3 * 2**-8, 0x3F82),
             (1 + 2**-8 + 2**-20, 0x3F81), (-(1 + 2**-8), 0xBF80), (0.0, 0), (-0.0, 0x8000)]
    values = np.array([value for value, _ in cases], dtype=np.float32)
    assert directory.to_bfloat16(values).tolist() == [bits for _, bits in cases]


@pytest.mark.parametrize("seed", range(20))
def test_bfloat16_is_the_nearest(seed):
    values = np.random.default_rng(seed).standard_normal(1000).astype(np.float32)
    rounded = (directory.to_bfloat16(values).astype(np.uint32) << 16).view(np.float32)
    spacing = np.exp2(np.floor(np.log2(np.abs(values))) - 7)
    assert np.all(np.abs(rounded - values) <= spacing / 2)


def test_unpermute_undoes_the_converter():
    heads, head_dim, columns = 3, 8, 5
    rows = np.arange(heads * head_dim * columns).reshape(heads * head_dim, columns)
    # The converter's way: [head, half, pair] -> [head, pair, half].
    stored = (rows.reshape(heads, 2, head_dim // 2, columns).swapaxes(1, 2)
              .reshape(rows.shape))
    assert not np.array_equal(stored, rows)
    assert np.array_equal(directory.unpermute(stored, heads), rows)


def test_names():
    names = {"blk.3.attn_q.weight": "model.layers.3.self_attn.q_proj.weight",
             "blk.0.attn_k.bias": "model.layers.0.self_attn.k_proj.bias",
             "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
    assert {name: directory.huggingface_name(name) for name in names} == names


def test_float32_is_written_as_it_was_meant():
    as_float32 = struct.unpack("f", struct.pack("f", 1e-5))[0]
    assert as_float32 != 1e-5 and directory.shortest_float32(as_float32) == 1e-5


def test_safetensors_file(tmp_path):
    path = tmp_path / "a.safetensors"
    bits = {"a": np.arange(6, dtype=np.uint16), "b": np.arange(3, dtype=np.uint16)}
    directory.write_safetensors(path, {"a": [2, 3], "b": [3]},
                                {name: lambda name=name: bits[name] for name in bits})
    header_size = int.from_bytes(path.read_bytes()[:8], "little")
    assert header_size % 8 == 0
    assert json.loads(path.read_bytes()[8:8 + header_size])["b"]["data_offsets"] == [12, 18]
    read = dict(safetensors.deserialize(path.read_bytes()))
    assert read["a"]["shape"] == [2, 3] and read["a"]["dtype"] == "BF16"
    assert bytes(read["b"]["data"]) == bits["b"].tobytes()


def test_refuses_unknown_architecture():
    with pytest.raises(SystemExit, match="architecture gemma: known are llama, qwen2"):
        directory.model_config({"general.architecture": "gemma"}, {})
