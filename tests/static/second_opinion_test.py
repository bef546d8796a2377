"""PyPI cuxray, which reads the same cubins by itself, agrees with kernel_report.py: occupancy, no
spills, and the length of the hottest loop. It also prints its estimate of the loop's stalls, a model
made from the compiler's own schedule and never a measured time."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

import kernel_report
import toolchain

ATTENTION = "kernels/attention/attention_cuda.cu"
INT8_LINEAR = "kernels/linear/linear_cuda.cu"
# It counts the instructions between an inner loop and the next label as the loop's.
BEHIND_THE_LOOP = {"Int8LinearKernel<Bfloat16, 96>": 7}


@pytest.fixture(scope="module")
def cuxray(static_tools):
    """cuxray(*arguments): the JSON that the command prints. It may fetch nothing."""
    environment = dict(os.environ, PYTHONPATH=str(static_tools), CUXRAY_NO_FETCH="1",
                       CUXRAY_TOOLCHAIN=str(toolchain.tool("nvdisasm").parent),
                       CUXRAY_CACHE=str(toolchain.ROOT / "build/static-evidence/cuxray"))

    def run(*arguments) -> dict:
        done = subprocess.run([sys.executable, "-m", "cuxray", *map(str, arguments), "--json"],
                              env=environment, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stderr
        return json.loads(done.stdout)

    return run


def cubin(compiled, source: str, arch: int) -> pathlib.Path:
    return next(c.path for c in compiled if (c.source, c.arch) == (source, arch))


@pytest.mark.slow
def test_occupancy_agrees(kernels, static_tools):
    sys.path.append(str(static_tools))
    occupancy, archspec = (importlib.import_module(f"cuxray.{name}")
                           for name in ("occupancy", "archspec"))
    for kernel in kernels:
        found = occupancy.compute(archspec.lookup(f"sm_{kernel.arch}"), kernel.registers,
                                  kernel.threads, kernel.shared)
        assert found.blocks_per_sm == kernel.blocks, kernel


@pytest.mark.slow
@pytest.mark.parametrize("arch", [90, 120])  # One of each generation of the compiler.
def test_nothing_is_spilled(compiled, cuxray, arch):
    answer = cuxray("gate", cubin(compiled, ATTENTION, arch), "spill_instrs==0")
    assert answer["passed"], answer["violations"]


@pytest.mark.slow
def test_hottest_loop_is_as_long(compiled, kernels, cuxray):
    arch = 90  # The newest whose schedule it can decode.
    loops = {}
    for source in (ATTENTION, INT8_LINEAR):
        for result in cuxray("sched", cubin(compiled, source, arch), "--kernel",
                             "(Flash|Int8).*Bfloat16")["results"]:
            name = kernel_report.ENTRY.search(toolchain.demangle([result["kernel"]])[0]).group(1)
            loops[kernel_report.short_name(name)] = result["loops"]
    on_tensor_cores = [k for k in kernels if k.arch == arch and k.hmma and "Bfloat16" in k.name]
    assert on_tensor_cores
    for kernel in on_tensor_cores:
        closest = min(loops[kernel.name], key=lambda loop: abs(loop["instructions"] - kernel.slots))
        print(f"{kernel.name} sm_{arch}: {closest['est_issue_stall_cycles_per_iter']} cycles of issue "
              f"and stall a turn (model), {kernel.hmma} HMMA")
        slots = kernel.slots + BEHIND_THE_LOOP.get(kernel.name, 0)
        assert closest["instructions"] == pytest.approx(slots, rel=0.02), kernel
