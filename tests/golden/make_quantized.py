"""Makes quantised folders of the small random models, and what they expand to.

To run by hand: make_quantized.py OUT_DIR [NAME ...]. OUT_DIR/NAME is a folder as its publishers write
it, OUT_DIR/NAME-expanded the same model with float32 weights: codes times scales by the
formula that the format documents. Needs numpy only; check_quantized.py holds the formulas
against the publishers' own code.
"""

import json
import pathlib
import shutil
import struct
import sys
import zlib

import numpy as np

import make_models

# quantization_config as the folders named in a row have it, without their group_size and what is
# a consequence of the row. Matrices are rounded to the nearest; what matters is how they are stored.
GPTQ = {"bits": 4, "checkpoint_format": "gptq", "damp_percent": 0.01, "desc_act": False,
        "group_size": 128, "lm_head": False, "quant_method": "gptq", "static_groups": False,
        "sym": True, "true_sequential": True, "model_file_base_name": None}
AWQ = {"bits": 4, "group_size": 128, "modules_to_not_convert": None, "quant_method": "awq",
       "version": "gemm", "zero_point": True}
FP8 = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
       "modules_to_not_convert": ["lm_head", "model.layers.0.input_layernorm"],
       "weight_block_size": [128, 128]}
CT_WEIGHTS = {"actorder": None, "block_structure": None, "dynamic": False, "group_size": None,
              "num_bits": 8, "observer": "minmax", "observer_kwargs": {}, "strategy": "channel",
              "symmetric": True, "type": "int"}
CT_TOKENS = {**CT_WEIGHTS, "dynamic": True, "observer": None, "strategy": "token"}


def compressed(form, inputs=None, **weights):
    group = {"input_activations": inputs, "output_activations": None, "targets": ["Linear"],
             "weights": {**CT_WEIGHTS, **weights}}
    return {"config_groups": {"group_0": group}, "format": form, "global_compression_ratio": None,
            "ignore": ["lm_head"], "kv_cache_scheme": None, "quant_method": "compressed-tensors",
            "quantization_status": "compressed"}


# name: (small model, quantization_config, type of the scales, what the server calls it and whether
# it keeps it packed)
FORMS = {
    "gptq-int4": ("llama31-gqa4-d64", GPTQ, "F16", "gptq_4bit_g128", True),
    "gptq-int8": ("qwen2-gqa7-d64-tied", {**GPTQ, "bits": 8, "group_size": 64}, "F16",
                  "gptq_8bit_g64", True),
    "gptq-int4-asym": ("qwen3-gqa3-d128", {**GPTQ, "group_size": 32, "sym": False}, "F16",
                       "gptq_4bit_g32", True),
    "gptq-int8-asym": ("qwen3-gqa3-d128", {**GPTQ, "bits": 8, "group_size": -1, "sym": False},
                       "F16", "gptq_8bit_channel", False),
    "gptq-v2": ("llama2-gqa1-d64", {**GPTQ, "checkpoint_format": "gptq_v2", "group_size": -1,
                                    "sym": False}, "F16", "gptq_4bit_channel", True),
    "gptq-act-order": ("llama2-gqa1-d64", {**GPTQ, "desc_act": True, "sym": False}, "F16",
                       "gptq_4bit_g128", False),
    "awq": ("qwen2-gqa7-d64-tied", {**AWQ, "group_size": 64}, "F16", "awq_4bit_g64", True),
    "awq-llama": ("llama31-gqa4-d64", AWQ, "F16", "awq_4bit_g128", True),
    "fp8": ("qwen3-gqa3-d128", FP8, "BF16", "fp8_128x128", False),
    "fp8-float-scales": ("llama31-gqa4-d64", FP8, "F32", "fp8_128x128", False),
    "w4a16": ("llama31-gqa4-d64",
              compressed("pack-quantized", num_bits=4, group_size=128, strategy="group",
                         actorder="weight"), "BF16", "compressed_4bit_g128", True),
    "w4a16-asym": ("qwen3-gqa3-d128",
                   compressed("pack-quantized", num_bits=4, group_size=64, strategy="group",
                              symmetric=False), "BF16", "compressed_4bit_g64", True),
    "w8a16": ("qwen2-gqa7-d64-tied", compressed("pack-quantized"), "BF16",
              "compressed_8bit_channel", True),
    "w8a8": ("qwen2-gqa7-d64-tied", compressed("int-quantized", inputs=CT_TOKENS), "BF16",
             "compressed_8bit_channel", True),
    "fp8-dynamic": ("llama31-gqa4-d64",
                    compressed("float-quantized", type="float",
                               inputs={**CT_TOKENS, "type": "float"}), "BF16",
                    "compressed_fp8_channel", False),
}


def read_tensors(folder):
    """{name: float32 array} of a folder with one file of plain numbers."""
    data = (folder / "model.safetensors").read_bytes()
    size, = struct.unpack_from("<Q", data)
    tensors = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = data[8 + size + begin:8 + size + end]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]])
        tensors[name] = values.astype("<f4").reshape(entry["shape"])
    return tensors


def write_tensors(path, tensors):
    """tensors: {name: (safetensors' dtype, array whose bytes are the data)}."""
    entries, end = {}, 0
    for name, (dtype, array) in tensors.items():
        begin, end = end, end + array.nbytes
        entries[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)))
        file.write(header)
        for _, array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())


def as_stored(values, dtype):
    """(array as stored, float32 array of the values that it means)."""
    if dtype == "F32":
        return values.astype("<f4"), values.astype("<f4")
    if dtype == "F16":
        return values.astype("<f2"), values.astype("<f2").astype("<f4")
    bits = values.astype("<f4").view("<u4")
    upper = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return upper, (upper.astype("<u4") << 16).view("<f4")


def pack_words(codes, bits, order=None):
    """[n, m] codes -> [n, ceil(m / codes of a word)] words, the first code lowest; `order` lists
    which of a word's columns comes first, second, ..."""
    count = 32 // bits
    padded = np.zeros((codes.shape[0], -(-codes.shape[1] // count) * count), np.uint32)
    padded[:, :codes.shape[1]] = codes
    parts = padded.reshape(codes.shape[0], -1, count)
    if order is not None:
        parts = parts[:, :, order]
    shifts = (np.arange(count) * bits).astype(np.uint32)
    return np.bitwise_or.reduce(parts << shifts, axis=2).astype("<u4")


def round_integers(values, bits, size, symmetric, scale_dtype, block_of):
    """Codes [outputs, inputs], and scales as stored, their values and zeros [outputs, quant blocks].
    `block_of` says which inputs share a scale."""
    count = values.shape[1] // size
    most = (1 << bits) - 1
    scales = np.empty((values.shape[0], count))
    zeros = np.full((values.shape[0], count), 1 << (bits - 1), np.int64)
    for index in range(count):
        part = values[:, block_of == index]
        if symmetric:
            scales[:, index] = np.abs(part).max(axis=1) / (most // 2)
        else:
            low, high = np.minimum(part.min(axis=1), 0), np.maximum(part.max(axis=1), 0)
            scales[:, index] = (high - low) / most
            # A zero of 0 has no place in GPTQ's first format.
            zeros[:, index] = np.clip(np.round(-low / scales[:, index]), 1, most)
    stored, scales = as_stored(scales, scale_dtype)
    codes = np.round(values / scales[:, block_of]) + zeros[:, block_of]
    return np.clip(codes, 0, most).astype(np.int64), stored, scales, zeros


def float8_values():
    bits = np.arange(256)
    exponent, mantissa = (bits >> 3) & 15, bits & 7
    magnitude = np.where(exponent == 0, mantissa * 2.0 ** -9, (8 + mantissa) * 2.0 ** (exponent - 10.0))
    magnitude[(bits & 127) == 127] = np.nan
    return np.where(bits < 128, magnitude, -magnitude).astype("<f4")


def round_float8(values, tile, scale_dtype):
    """Bytes, scales as stored, and the values that they mean."""
    rows, columns = (-(-size // part) for size, part in zip(values.shape, tile))
    scales = np.empty((rows, columns))
    for row in range(rows):
        for column in range(columns):
            part = values[row * tile[0]:(row + 1) * tile[0], column * tile[1]:(column + 1) * tile[1]]
            scales[row, column] = np.abs(part).max() / 448
    stored, scales = as_stored(scales, scale_dtype)
    full = scales.repeat(tile[0], 0).repeat(tile[1], 1)[:values.shape[0], :values.shape[1]]
    numbers = float8_values()
    order = np.argsort(numbers[:127])
    middles = (numbers[order][1:] + numbers[order][:-1]) / 2
    codes = order[np.searchsorted(middles, np.abs(values / full))].astype(np.uint8)
    codes |= (np.signbit(values).astype(np.uint8) << 7)
    return codes, stored, numbers[codes] * full


def store_gptq(values, config, scale_dtype, random):
    size = values.shape[1] if config["group_size"] == -1 else config["group_size"]
    block_of = np.arange(values.shape[1]) // size
    if config["desc_act"]:
        random.shuffle(block_of)
    bits = config["bits"]
    codes, stored, scales, zeros = round_integers(values, bits, size, config["sym"], scale_dtype,
                                                  block_of)
    less = 1 if config["checkpoint_format"] == "gptq" else 0
    tensors = {"qweight": ("I32", pack_words(codes, bits).T),
               "qzeros": ("I32", pack_words(zeros.T - less, bits)), "scales": (scale_dtype, stored.T),
               "g_idx": ("I32", block_of.astype("<i4"))}
    return tensors, scales[:, block_of] * (codes - zeros[:, block_of])


def store_awq(values, config, scale_dtype, _):
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    block_of = np.arange(values.shape[1]) // config["group_size"]
    codes, stored, scales, zeros = round_integers(values, 4, config["group_size"], False,
                                                  scale_dtype, block_of)
    tensors = {"qweight": ("I32", pack_words(codes.T, 4, order)),
               "qzeros": ("I32", pack_words(zeros.T, 4, order)), "scales": (scale_dtype, stored.T)}
    return tensors, scales[:, block_of] * (codes - zeros[:, block_of])


def store_fp8(values, config, scale_dtype, _):
    codes, stored, expanded = round_float8(values, config["weight_block_size"], scale_dtype)
    return {"weight": ("F8_E4M3", codes), "weight_scale_inv": (scale_dtype, stored)}, expanded


def store_compressed(values, config, scale_dtype, _):
    weights = config["config_groups"]["group_0"]["weights"]
    if weights["type"] == "float":
        codes, stored, expanded = round_float8(values, (1, values.shape[1]), scale_dtype)
        return {"weight": ("F8_E4M3", codes), "weight_scale": (scale_dtype, stored)}, expanded
    size = weights["group_size"] or values.shape[1]
    bits = weights["num_bits"]
    block_of = np.arange(values.shape[1]) // size
    codes, stored, scales, zeros = round_integers(values, bits, size, weights["symmetric"],
                                                  scale_dtype, block_of)
    tensors = {"weight_scale": (scale_dtype, stored)}
    if config["format"] == "int-quantized":
        tensors["weight"] = ("I8", (codes - 128).astype(np.int8))
    else:
        tensors["weight_packed"] = ("I32", pack_words(codes, bits))
        tensors["weight_shape"] = ("I64", np.array(values.shape, "<i8"))
    if not weights["symmetric"]:
        tensors["weight_zero_point"] = ("I32", pack_words(zeros.T, bits).T)
    return tensors, scales[:, block_of] * (codes - zeros[:, block_of])


STORE = {"gptq": store_gptq, "awq": store_awq, "fp8": store_fp8,
         "compressed-tensors": store_compressed}


def make_folder(root, name):
    """Writes ROOT/NAME and ROOT/NAME-expanded and returns both."""
    base, quantization, scale_dtype, _, _ = FORMS[name]
    source = make_models.make_model(root, base)
    folder, expanded_folder = (pathlib.Path(root) / name, pathlib.Path(root) / f"{name}-expanded")
    random = np.random.RandomState(zlib.crc32(name.encode()))
    tensors, expanded = {}, {}
    for tensor, values in read_tensors(source).items():
        module = tensor.removesuffix("weight")
        if not module.endswith("_proj.") or module == tensor:
            tensors[tensor] = ("F32", values)
            expanded[tensor] = ("F32", values)
            continue
        stored, meant = STORE[quantization["quant_method"]](values.astype(np.float64), quantization,
                                                            scale_dtype, random)
        tensors.update({module + part: entry for part, entry in stored.items()})
        expanded[tensor] = ("F32", meant.astype("<f4"))
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["torch_dtype" if "torch_dtype" in config else "dtype"] = "float32"
    for to, contents in ((folder, tensors), (expanded_folder, expanded)):
        to.mkdir(exist_ok=True)
        for file in ("tokenizer.json", "generation_config.json"):
            shutil.copyfile(source / file, to / file)
        write_tensors(to / "model.safetensors", contents)
        more = {"quantization_config": quantization} if to is folder else {}
        (to / "config.json").write_text(json.dumps({**config, **more}, indent=2), encoding="utf-8")
    return folder, expanded_folder


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: make_quantized.py OUT_DIR [NAME ...]")
    for name in sys.argv[2:] or FORMS:
        folder, expanded = make_folder(sys.argv[1], name)
        print(f"{folder}, {expanded}")


if __name__ == "__main__":
    main()
