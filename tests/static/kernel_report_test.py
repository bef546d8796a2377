"""What the compiler makes of the CUDA sources stays within budgets.txt, on every architecture; and
the report notices when it does not."""

import dataclasses
import pathlib
import subprocess

import pytest

import kernel_report
import toolchain


@pytest.mark.slow
def test_every_source_compiles_alone_without_spills(compiled):
    assert {(c.source, c.arch) for c in compiled} == {
        (source, arch) for source in toolchain.sources() for arch in toolchain.ARCHITECTURES}


@pytest.mark.slow
def test_kernels_are_within_budget(kernels):
    budgets = kernel_report.read_budgets(kernel_report.BUDGETS.read_text(encoding="utf-8"))
    print(kernel_report.table(kernels))
    assert kernel_report.violations(kernels, budgets) == []


@pytest.mark.slow
def test_report_reads_every_kernel(kernels):
    """Nothing that ptxas and nvdisasm always say is missing, so that no limit holds by silence."""
    for kernel in kernels:
        assert kernel.registers > 0 and kernel.blocks > 0 and kernel.threads > 0, kernel
    on_tensor_cores = [k for k in kernels if k.hmma]
    assert {k.arch for k in on_tensor_cores} == set(toolchain.ARCHITECTURES)
    assert all(k.name.startswith(("FlashAttentionKernel", "Int8LinearKernel")) for k in on_tensor_cores)


FLASH = kernel_report.Kernel("Flash<1>", 80, 128, 33280, registers=160, blocks=3, hmma=64,
                             slots=500)


@pytest.mark.parametrize("change, says", [
    ({"registers": 161}, "161 registers, allowed 160"),
    ({"static_shared": 16}, "33296 bytes of shared memory, allowed 33280"),
    ({"blocks": 2}, "2 blocks fit a multiprocessor, wanted 3"),
    ({"slots": 513}, "8.02 issue slots per HMMA, allowed 8.0"),
    ({"spilled_bytes": 4}, "4 bytes spilled"),
    ({"local_accesses": 1}, "1 accesses to local memory"),
])
def test_finds_kernel_over_budget(change, says):
    budgets = kernel_report.read_budgets("# comment\n160 33280 3 8.0 Flash<1>\n")
    assert kernel_report.violations([FLASH], budgets) == []
    found = kernel_report.violations([dataclasses.replace(FLASH, **change)], budgets)
    assert found == [f"Flash<1> on sm_80: {says}"]


def test_only_kernels_bound_by_memory_may_need_many_slots():
    budgets = kernel_report.read_budgets("160 33280 3 30 Flash<1>\n160 33280 3 30 Int8LinearKernel<T, 16>")
    slow = dataclasses.replace(FLASH, slots=64 * 20)
    assert kernel_report.over_budget(slow, budgets["Flash<1>"]) == [
        "Flash<1> on sm_80: 20.00 issue slots per HMMA, allowed 9.0"]
    few_rows = dataclasses.replace(slow, name="Int8LinearKernel<T, 16>")
    assert kernel_report.over_budget(few_rows, budgets[few_rows.name]) == []


def test_every_kernel_has_a_budget_and_every_budget_a_kernel():
    budgets = kernel_report.read_budgets("9 0 1 0 Other<2>")
    assert kernel_report.violations([FLASH], budgets) == [
        "Other<2>: a budget but no kernel", "Flash<1>: no line in budgets.txt"]


SPILLING = """
__global__ void __launch_bounds__(1024, 2) Spill(const float* from, float* to) {
  float values[200];
  for (int i = 0; i < 200; ++i) values[i] = from[i * 1024 + threadIdx.x];
  for (int i = 0; i < 200; ++i) to[i * 1024 + threadIdx.x] = values[199 - i] * values[(i * 7) % 200];
}
"""


def test_spill_ends_the_compilation(tmp_path):
    try:
        compiler = toolchain.nvcc()
    except toolchain.Missing as missing:
        pytest.skip(str(missing))
    source = pathlib.Path(tmp_path / "spill.cu")
    source.write_text(SPILLING, encoding="utf-8")
    done = subprocess.run([compiler, *toolchain.FLAGS, *toolchain.STRICT, "-arch=sm_90", "-cubin",
                           source, "-o", tmp_path / "spill.cubin"], cwd=toolchain.ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "spill" in done.stderr + done.stdout
