"""The test of the tests: kernels with one fault each must fail on the emulator.

A comment `// fault: NAME, NAME` in a kernel source marks the place of these faults: the lines below
it. Each fault changes the text there. The changed source is built into a shared library that
simt_faults loads in place of the kernel; its quick tests must then fail, and name what is expected of
them. The tests need the C++ compiler and simt_faults, else they are skipped.
"""

import concurrent.futures
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FLASH = "kernels/attention/flash_attention.cuh"
TILE = "kernels/attention/flash_tile.cuh"
SOFTMAX = "kernels/attention/flash_softmax.cuh"
CURSOR = "kernels/attention/key_cursor.cuh"
MERGE = "kernels/attention/merge_splits.cuh"
INT8 = "kernels/linear/int8_linear.cuh"

# What a report or a failed comparison says.
RACE = "race in shared memory|copy into bytes in use"
GLOBAL_RACE = "race in global memory"
PENDING = "read before the copy was waited for"
BOUNDS = "out of the bounds of registered memory"
UNINITIALIZED = "read of uninitialised shared memory"
CONFLICT = "bank conflict"
DIVERGENT = "divergent collective"
AT_EXIT = "exit with pending copies"
VALUES = "CountWrong"
WORK = "needed.multiply_accumulates"
WAVEFRONTS = "wavefronts.actual"
LOCAL = "runtime error: index .* out of bounds"


@dataclasses.dataclass(frozen=True)
class Op:
    """What is built of it, and its quick tests."""
    source: str
    tests: str


ATTENTION = Op("tests/simt/faulty_attention.cc", "SimtAttentionEdgeTest.*")
INT8_LINEAR = Op("tests/simt/faulty_int8_linear.cc", "*Int8LinearEdgeTest.*:*Int8LinearWorkTest.*Codes*")


@dataclasses.dataclass(frozen=True)
class Fault:
    """`old`, which the fault's place in `file` has once, becomes `new`; the output then matches `finds`."""
    name: str
    file: str
    old: str
    new: str
    finds: str

    @property
    def op(self) -> Op:
        return INT8_LINEAR if "/linear/" in self.file else ATTENTION

    def apply(self, source: str) -> str:
        """The file's text with the fault; an error if the marker or `old` is not there exactly once."""
        markers = [m for m in MARKER.finditer(source) if self.name in m[1].split(", ")]
        assert len(markers) == 1, f"{self.file} has {len(markers)} markers for {self.name}"
        begin = markers[0].end()
        place = "".join(source[begin:].splitlines(keepends=True)[:PLACE_LINES])
        count = place.count(self.old)
        assert count == 1, f"the place of {self.name} has {count} times: {self.old}"
        return source[:begin] + place.replace(self.old, self.new) + source[begin + len(place):]


MARKER = re.compile(r"^ *// fault: (.*)\n", re.MULTILINE)
PLACE_LINES = 6  # Below a marker.

FAULTS = [
    Fault("keys_not_waited_for", FLASH,
          "WaitCopies<1>", "WaitCopies<2>", PENDING),
    Fault("values_not_waited_for", FLASH,
          "WaitCopies<1>", "WaitCopies<2>", PENDING),
    Fault("no_barrier_for_keys", FLASH,
          "BlockBarrier();", "", RACE),
    Fault("no_barrier_for_values", FLASH,
          "BlockBarrier();", "", RACE),
    Fault("no_barrier_for_rows", FLASH,
          "BlockBarrier();", "", RACE),
    Fault("one_stage_of_keys", FLASH,
          "return kKeyOffset + t % 2 *",
          "return kKeyOffset + 0 *", RACE),
    Fault("one_stage_of_values", FLASH,
          "return kValueOffset + t % 2 *",
          "return kValueOffset + 0 *", RACE),
    Fault("stale_rows", FLASH,
          "kRowOffset + t % 2 * Layout::kKeys",
          "kRowOffset + 0 * Layout::kKeys", f"{RACE}|{VALUES}"),
    Fault("rows_not_looked_up", FLASH,
          "if (t + 2 < work.key_tiles) FindCacheRows",
          "if (t + 3 < work.key_tiles) FindCacheRows", VALUES),
    Fault("rank_past_the_end", FLASH,
          "rank < work.rank_end ? cursor",
          "rank <= work.rank_end ? cursor", BOUNDS),
    Fault("no_zero_fill", FLASH,
          "row >= 0);",
          "true);", BOUNDS),
    Fault("rest_not_filled", FLASH,
          "CopyAsync16(", "if (row >= 0) CopyAsync16(", UNINITIALIZED),
    Fault("copies_past_the_last_tile", FLASH,
          "if (t < work.key_tiles) {",
          "if (t <= work.key_tiles) {", AT_EXIT),
    Fault("one_tile_too_many", FLASH,
          "work.rank_begin + Layout::kKeys - 1) / Layout::kKeys;",
          "work.rank_begin + Layout::kKeys - 1) / Layout::kKeys + 1;", WORK),
    Fault("edge_tile_unmasked", FLASH,
          "(common - work.rank_begin) / Layout::kKeys;",
          "(common - work.rank_begin + Layout::kKeys - 1) / Layout::kKeys;", VALUES),
    Fault("causal_bound_off_by_one", FLASH,
          "int seen = work.tile.KeysOfRow(token);",
          "int seen = work.tile.KeysOfRow(token + 1);", VALUES),
    Fault("wrong_head", FLASH,
          "cursor.RowOf(p.kv, work.kv_head, rank)",
          "cursor.RowOf(p.kv, 0, rank)", VALUES),
    Fault("stale_split", FLASH,
          "work.rank_begin = LoadGlobal(&split->rank_begin);",
          "work.rank_begin = 0;", GLOBAL_RACE),
    Fault("splits_in_one_place", FLASH,
          "+ work.rank_begin / kSplitKeys;",
          ";", GLOBAL_RACE),
    Fault("rows_that_are_none_stored", FLASH,
          "if (!row.exists()) continue;", "", GLOBAL_RACE),
    Fault("store_past_the_end", FLASH,
          "reinterpret_cast<uint32_t*>(to + n * 8)",
          "reinterpret_cast<uint32_t*>(to + n * 8 + 8)", BOUNDS),
    Fault("no_guard_for_rows_that_see_nothing", FLASH,
          "const float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;",
          "const float inverse = 1.0f / sum;", VALUES),
    Fault("sum_after_a_branch", FLASH,
          "const float sum =",
          "if (!LaneRow(p, work, i).exists()) continue; const float sum =", DIVERGENT),
    Fault("no_swizzle", TILE,
          "(kSwizzled ? chunk ^ (key & 7) : chunk) * 16",
          "chunk * 16", CONFLICT),
    Fault("no_padding", TILE,
          "kChunks | 1)",
          "kChunks)", CONFLICT),
    Fault("key_fragments_swapped", TILE,
          "b[0], b[1]", "b[1], b[0]", VALUES),
    Fault("value_fragments_swapped", TILE,
          "b[0], b[1]", "b[2], b[3]", VALUES),
    Fault("weight_fragments_swapped", TILE,
          "a[1] = NarrowPair<T>(low[2], low[3]);\n"
          "  a[2] = NarrowPair<T>(high[0], high[1]);",
          "a[2] = NarrowPair<T>(low[2], low[3]);\n"
          "  a[1] = NarrowPair<T>(high[0], high[1]);", VALUES),
    Fault("values_not_transposed", TILE,
          "LoadMatricesTransposed(values",
          "LoadMatrices(values", VALUES),
    Fault("mask_off_by_one", SOFTMAX,
          "column + i % 2 >= seen",
          "column + i % 2 > seen", VALUES),
    Fault("fragment_past_the_end", SOFTMAX,
          "for (int n = 0; n < kDims / 8; ++n) {",
          "for (int n = 0; n <= kDims / 8; ++n) {", LOCAL),
    Fault("output_not_rescaled", SOFTMAX,
          "output.c[row / 2][n][first] *= keep;",
          ";", VALUES),
    Fault("sum_of_two_lanes_only", SOFTMAX,
          "return value + ShuffleXor(value, 2);",
          "return value;", VALUES),
    Fault("interval_bound_off_by_one", CURSOR,
          "shift_ = begin - end_rank_;",
          "shift_ = begin - end_rank_ + 1;", f"{BOUNDS}|{VALUES}"),
    Fault("block_table_past_the_end", CURSOR,
          "LoadGlobal(blocks_ + block)",
          "LoadGlobal(blocks_ + block + 1)", BOUNDS),
    Fault("merge_weight_wrong", MERGE,
          "Exp2(LoadGlobal(from) - largest)",
          "Exp2(largest - LoadGlobal(from))", VALUES),
    Fault("merge_of_the_first_split_only", MERGE,
          "const float* from = partial + s * stride;",
          "const float* from = partial;", VALUES),
    Fault("merge_without_the_last_split", MERGE,
          "for (int s = 0; s < splits; ++s) {",
          "for (int s = 0; s + 1 < splits; ++s) {", VALUES),
    Fault("int8_tile_not_waited_for", INT8,
          "WaitCopies<kStages - 2>();",
          "WaitCopies<kStages - 1>();", PENDING),
    Fault("int8_no_barrier", INT8,
          "BlockBarrier();", "", f"{RACE}|{PENDING}"),
    Fault("int8_copy_over_the_tile_in_use", INT8,
          "CopyTile(t + kStages - 1, free_stage, work);",
          "CopyTile(t + kStages - 1, stage, work);", RACE),
    Fault("int8_copies_past_the_last_tile", INT8,
          "if (t < work.tiles) {",
          "if (t <= work.tiles) {", AT_EXIT),
    Fault("int8_columns_past_the_end", INT8,
          "left > 0 && row < rows",
          "row < rows", BOUNDS),
    Fault("int8_rows_past_the_end", INT8,
          "left > 0 && row < rows",
          "left > 0", BOUNDS),
    Fault("int8_rest_not_filled", INT8,
          "CopyAsync16(to", "if (left > 0 && row < rows) CopyAsync16(to", UNINITIALIZED),
    Fault("int8_one_span_of_scales", INT8,
          "t / kSpanTiles % 2 * kSpanBytes",
          "0 * kSpanBytes", RACE),
    Fault("int8_stale_scales", INT8,
          "LoadScales(work, t + kSpanTiles, held);",
          "LoadScales(work, t, held);", f"{VALUES}|global_loaded_bytes"),
    Fault("int8_scales_past_the_end", INT8,
          "if (strip < work.scale_strips)",
          "if (strip <= work.scale_strips)", BOUNDS),
    Fault("int8_outputs_past_the_end", INT8,
          "row >= p.rows || output >= p.weight.outputs", "row >= p.rows", f"{BOUNDS}|{GLOBAL_RACE}"),
    Fault("int8_sum_of_some_lanes_only", INT8,
          "int lanes = kLanes / 2;",
          "int lanes = kLanes / 4;", VALUES),
    Fault("int8_wrong_scale", INT8,
          "scales[i] >> strip * 16",
          "scales[i] >> (strip ^ 1) * 16", VALUES),
    Fault("int8_scale_of_the_other_output", INT8,
          "scale[2 * band + i / 2]",
          "scale[2 * band + i % 2]", VALUES),
    Fault("int8_code_fragments_swapped", INT8,
          "codes[i / 2][0][half * 2 + i % 2]",
          "codes[i / 2][0][i % 2 * 2 + half]", VALUES),
    Fault("int8_input_fragments_swapped", INT8,
          "codes[band][0], x.x, x.y",
          "codes[band][0], x.y, x.x", VALUES),
    Fault("int8_sum_not_of_one_strip", INT8,
          "float sum[4] = {};",
          "float sum[4] = {sums[band][n][0]};", VALUES),
    Fault("int8_sign_of_codes_lost", INT8,
          "first & 0xff80ff80u",
          "first & 0xff00ff00u", f"{VALUES}|code -128"),
    Fault("int8_codes_not_swizzled", INT8,
          "(chunk ^ (row & 2))",
          "chunk", WAVEFRONTS),
    Fault("int8_inputs_not_swizzled", INT8,
          "(chunk ^ (row & 1) * 4)",
          "chunk", WAVEFRONTS),
]


def binary() -> pathlib.Path:
    folder = pathlib.Path(os.environ.get("STRUCTATTN_BIN", ROOT / "build/release/bin"))
    path = folder / "simt_faults"
    if not path.exists() or not shutil.which("g++"):
        pytest.skip(f"no {path}, or no g++")
    return path


def build(op: Op, fault: Fault | None, folder: pathlib.Path) -> pathlib.Path:
    """The library with the fault, or without any; an error if it does not apply or compile."""
    folder.mkdir()
    if fault:
        changed = folder / fault.file
        changed.parent.mkdir(parents=True)
        changed.write_text(fault.apply((ROOT / fault.file).read_text(encoding="utf-8")),
                           encoding="utf-8")
    library = folder / "kernels.so"
    # Bsymbolic: the program has kernels of the same names, which must not take their place.
    command = ["g++", "-std=c++20", "-O1", "-fPIC", "-shared", "-Wl,-Bsymbolic", "-fno-gnu-unique",
               "-ffp-contract=off", "-w", '-DSTRUCTATTN_DEVICE_HEADER="tests/simt/device.h"',
               "-fsanitize=bounds", "-fno-sanitize-recover=all",
               f"-fmacro-prefix-map={ROOT}/=", f"-I{folder}", f"-I{ROOT}",
               ROOT / op.source, "-o", library]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return library


def run(op: Op, fault: Fault | None, folder: pathlib.Path) -> subprocess.CompletedProcess:
    environment = dict(os.environ, STRUCTATTN_FAULTY_KERNELS=str(build(op, fault, folder)))
    command = [binary(), f"--gtest_filter={op.tests}", "--gtest_fail_fast"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False,
                          timeout=120)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every fault's run, two at a time, as futures."""
    binary()
    folder = tmp_path_factory.mktemp("faults")
    asked = [(op.source, op, None) for op in (ATTENTION, INT8_LINEAR)]
    asked += [(fault.name, fault.op, fault) for fault in FAULTS]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(run, op, fault, folder / pathlib.PurePath(name).stem)
               for name, op, fault in asked}


def test_markers_and_faults_are_the_same():
    marked = [(str(path.relative_to(ROOT)), name)
              for path in sorted((ROOT / "kernels").glob("**/*.cu*"))
              for marker in MARKER.finditer(path.read_text(encoding="utf-8"))
              for name in marker[1].split(", ")]
    assert sorted(marked) == sorted((fault.file, fault.name) for fault in FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_has_its_place(fault):
    source = (ROOT / fault.file).read_text(encoding="utf-8")
    assert fault.apply(source) != source


@pytest.mark.parametrize("times", [0, 2])
def test_marker_that_is_not_there_once_is_refused(times):
    fault = Fault("some_fault", "", "a + b", "a - b", VALUES)
    marked = "  // fault: other, some_fault\n  return a + b;\n"
    assert fault.apply(marked) == marked.replace("a + b", "a - b")
    with pytest.raises(AssertionError):
        fault.apply(times * marked)


@pytest.mark.parametrize("op", [ATTENTION, INT8_LINEAR], ids=lambda op: op.source)
def test_kernels_without_fault_pass(runs, op):
    done = runs[op.source].result()
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_caught(runs, fault):
    done = runs[fault.name].result()
    output = done.stdout + done.stderr
    assert done.returncode == 1, f"exit code {done.returncode}: {output[-3000:]}"
    assert re.search(fault.finds, output), output[-3000:]
