"""Writes dequantize.bin: random blocks of every quantised encoding, expanded by PyPI `gguf`.

Run by hand when an encoding is added: python3 make_dequantize_fixture.py (needs numpy and gguf).
Layout, little-endian, per encoding: u32 type, u32 block bytes, u32 floats, blocks, floats.
"""

import pathlib
import struct

import gguf
import numpy as np

TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
# Where the half-precision scales lie in a block.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def blocks_of(name, count, random):
    """Random bytes with finite scales of all magnitudes, subnormal ones and both zeros included."""
    qtype = gguf.GGMLQuantizationType[name]
    _, block_bytes = gguf.GGML_QUANT_SIZES[qtype]
    blocks = random.integers(0, 256, (count, block_bytes), dtype=np.uint8)
    for place in SCALES[name]:
        halves = random.integers(0, 0x7C00, count, dtype=np.uint16)
        halves |= random.integers(0, 2, count, dtype=np.uint16) << np.uint16(15)
        halves[:3] = [0x0000, 0x8000, 0x0001]
        blocks[:, place:place + 2] = halves.view(np.uint8).reshape(count, 2)
    return qtype, blocks


def main():
    random = np.random.default_rng(20261)
    out = bytearray()
    for name in TYPES:
        count = 8 if name.endswith("_K") else 32
        qtype, blocks = blocks_of(name, count, random)
        floats = gguf.dequantize(blocks, qtype).astype("<f4")
        out += struct.pack("<III", int(qtype), blocks.size, floats.size)
        out += blocks.tobytes() + floats.tobytes()
    pathlib.Path(__file__).with_name("dequantize.bin").write_bytes(bytes(out))


if __name__ == "__main__":
    main()
