"""Holds make_quantized.py against the publishers' own code: the packages expand each folder, too.

Run by hand when a form is added: check_quantized.py OUT_DIR [NAME ...]. Needs torch, transformers,
compressed-tensors, and autoawq's and gptqmodel's sources on the PYTHONPATH (their kernels
are not built and not needed). Ends with `N passed, N failed`, a matrix each.
"""

import argparse
import importlib.util
import json
import pathlib
import sys

import numpy as np
import torch
from safetensors import safe_open

import make_quantized


def load_file(package, file):
    """A module of a package by its file, without what the package itself imports."""
    for folder in map(pathlib.Path, sys.path):
        if (folder / package / file).exists():
            spec = importlib.util.spec_from_file_location(pathlib.Path(file).stem,
                                                          folder / package / file)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise SystemExit(f"{package} is not on the PYTHONPATH")


def expand_awq(tensors, config):
    awq = load_file("awq", "utils/packing_utils.py")
    return awq.dequantize_gemm(tensors["qweight"], tensors["qzeros"], tensors["scales"].float(),
                               config["bits"], config["group_size"]).T


def expand_gptq(tensors, config):
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module
    inputs = tensors["g_idx"].numel()
    size = inputs if config["group_size"] == -1 else config["group_size"]
    linear = TorchLinear(bits=config["bits"], group_size=size, sym=config["sym"],
                         desc_act=config["desc_act"], in_features=inputs,
                         out_features=tensors["scales"].shape[1], bias=False)
    for name, tensor in tensors.items():
        setattr(linear, name, tensor.float() if name == "scales" else tensor.clone())
    if config["checkpoint_format"] == "gptq":
        convert_gptq_v1_to_v2_format_module(linear, config["bits"], torch.int32)
    return linear.dequantize_weight().T


def expand_fp8(tensors, config):
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize
    weight, scales = tensors["weight"], tensors["weight_scale_inv"].float()
    # It takes whole tiles only.
    padded = torch.zeros([-(-size // tile) * tile for size, tile in
                          zip(weight.shape, config["weight_block_size"])])
    padded[:weight.shape[0], :weight.shape[1]] = weight.float()
    expanded = Fp8Dequantize(None)._dequantize_one(padded.to(weight.dtype), scales,
                                                   output_dtype=torch.float32)
    return expanded[:weight.shape[0], :weight.shape[1]]


def expand_compressed(tensors, config):
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme
    scheme = QuantizationScheme(**config["config_groups"]["group_0"])
    compressor = BaseCompressor.get_value_from_registry(config["format"])
    floats = {name: tensor.float() if "scale" in name else tensor
              for name, tensor in tensors.items()}
    return compressor.decompress(floats, scheme)["weight"]


EXPAND = {"gptq": expand_gptq, "awq": expand_awq, "fp8": expand_fp8,
          "compressed-tensors": expand_compressed}


def check(folder, expanded_folder):
    """(equal matrices, different ones)."""
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    counts = [0, 0]
    with (safe_open(folder / "model.safetensors", "pt") as given,
          safe_open(expanded_folder / "model.safetensors", "pt") as expected):
        for name in expected.keys():
            module = name.removesuffix("weight")
            if not module.endswith("_proj."):
                continue
            tensors = {stored.removeprefix(module): given.get_tensor(stored)
                       for stored in given.keys() if stored.startswith(module)}
            tensors.pop("bias", None)
            values = EXPAND[config["quant_method"]](tensors, config)
            equal = np.array_equal(values.float().numpy(), expected.get_tensor(name).numpy())
            counts[not equal] += 1
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    total = [0, 0]
    for name in options.names or make_quantized.FORMS:
        counts = check(*make_quantized.make_folder(options.out, name))
        print(f"{name}: {counts[0]} matrices equal, {counts[1]} not", flush=True)
        total = [a + b for a, b in zip(total, counts)]
    print(f"{total[0]} passed, {total[1]} failed")
    sys.exit(1 if total[1] else 0)


if __name__ == "__main__":
    main()
