"""The emulator's tensor-core instructions place every element where an independent table of NVIDIA's
layouts (PyPI tensor-layouts) has it, and so does the contract in kernels/cuda/device.cuh."""

import importlib
import sys

import pytest

import toolchain

LANES = range(32)


@pytest.fixture(scope="module")
def oracle(static_tools):
    sys.path.append(str(static_tools))
    yield importlib.import_module("tensor_layouts.atoms_nv")
    sys.path.remove(str(static_tools))


@pytest.fixture(scope="module")
def dump(tmp_path_factory) -> dict[str, list[list[int]]]:
    """Numbers that fragments_dump.cc printed, by the words before them."""
    program = tmp_path_factory.mktemp("fragments") / "dump"
    toolchain.run(["g++", "-std=c++20", "-O1", "-I.", "tests/static/fragments_dump.cc",
                   "tests/simt/fragments.cc", "-o", program])
    lines: dict[str, list[list[int]]] = {}
    for line in toolchain.run([program]).splitlines():
        words = [word for word in line.split() if not word.isdigit()]
        lines.setdefault(" ".join(words), []).append(list(map(int, line.split()[len(words):])))
    return lines


@pytest.mark.parametrize("kind, atom", [("plain", "SM75_U32x4_LDSM_N"),
                                        ("transposed", "SM75_U16x8_LDSM_T")])
def test_loaded_matrices_lie_as_in_the_table(dump, oracle, kind, atom):
    layout = getattr(oracle, atom).dst_layout_bits
    expected = [layout(lane, 32 * register + 16 * half) // 16
                for lane in LANES for register in range(4) for half in range(2)]
    assert dump[f"load {kind}"] == [expected]


def place(layout, lane: int, value: int, rows: int) -> tuple[int, int]:
    """(m, k), (n, k) or (m, n): the tables count columns of `rows` elements."""
    offset = layout(lane, value)
    return offset % rows, offset // rows


def test_products_meet_as_in_the_table(dump, oracle):
    atom = oracle.SM80_16x8x16_F32F16F16F32_TN
    number_of_b = {place(atom.b_layout, lane, value, 8): lane * 4 + value
                   for lane in LANES for value in range(4)}
    for element, found in enumerate(dump["multiply"]):
        row, k = place(atom.a_layout, element // 8, element % 8, 16)
        expected = []
        for lane in LANES:
            for value in range(4):
                m, n = place(atom.c_layout, lane, value, 16)
                expected.append(number_of_b[n, k] if m == row else 0)
        assert found == expected, f"lane {element // 8}, element {element % 8} of a"


def test_both_types_have_one_layout(oracle):
    half, bfloat = oracle.SM80_16x8x16_F32F16F16F32_TN, oracle.SM80_16x8x16_F32BF16BF16F32_TN
    assert (half.a_layout, half.b_layout, half.c_layout) == (
        bfloat.a_layout, bfloat.b_layout, bfloat.c_layout)


def test_contract_of_the_device_header(oracle):
    """What device.cuh says: g = lane / 4, t = lane % 4, pairs of elements in a register."""
    atom = oracle.SM80_16x8x16_F32BF16BF16F32_TN
    for lane in LANES:
        g, t = lane // 4, lane % 4
        assert [place(atom.c_layout, lane, i, 16) for i in range(4)] == [
            (g, 2 * t), (g, 2 * t + 1), (g + 8, 2 * t), (g + 8, 2 * t + 1)]
        assert [place(atom.a_layout, lane, 2 * i, 16) for i in range(4)] == [
            (g, 2 * t), (g + 8, 2 * t), (g, 2 * t + 8), (g + 8, 2 * t + 8)]
        assert [place(atom.b_layout, lane, 2 * i, 8) for i in range(2)] == [(g, 2 * t), (g, 2 * t + 8)]
        for i, element in ((i, 2 * i + 1) for i in range(4)):
            row, column = place(atom.a_layout, lane, 2 * i, 16)
            assert place(atom.a_layout, lane, element, 16) == (row, column + 1)
