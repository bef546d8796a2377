"""Turns a tool that this machine lacks into a skip."""

import pytest

import kernel_report
import toolchain


@pytest.fixture(scope="session")
def compiled() -> list[toolchain.Compiled]:
    """Every CUDA source, alone, for every architecture."""
    try:
        toolchain.tools()
        return toolchain.compile_all()
    except toolchain.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def kernels(compiled) -> list[kernel_report.Kernel]:
    return kernel_report.all_kernels()


@pytest.fixture(scope="session")
def static_tools():
    """The folder of the second opinions."""
    try:
        return toolchain.tools()
    except toolchain.Missing as missing:
        pytest.skip(str(missing))
