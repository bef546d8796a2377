"""Asks PyPI sentryward, a static verifier of PTX, whether small launches of the kernels are free of
races in every schedule. As a program it prints the verifier's diagnostics:

    python tests/static/race.py [PART OF A KERNEL'S NAME]

The launches are race_launches.cc's. Branches and addresses that depend on loaded data are beyond the
verifier; such kernels have only the emulator's race detector (tests/simt).
"""

import dataclasses
import importlib
import json
import pathlib
import re
import sys
import tempfile

import kernel_report
import toolchain

ARCH = 120
TIMEOUT_S = 120
ENTRY = re.compile(r"\.entry (\w+)\(")


@dataclasses.dataclass(frozen=True)
class Launch:
    kernel: str
    source: str
    grid: tuple[int, int]
    shared_bytes: int
    scalars: tuple[str, ...]  # "offset:type:value"


def launches() -> list[Launch]:
    program = toolchain.ROOT / "build/static-evidence/race_launches"
    program.parent.mkdir(parents=True, exist_ok=True)
    toolchain.run(["g++", "-std=c++20", "-I.", "tests/static/race_launches.cc", "-o", program])
    rows = [line.split("\t") for line in toolchain.run([program]).splitlines()]
    return [Launch(kernel, f"kernels/{source}_cuda.cu", (int(x), int(y)), int(shared), tuple(scalars))
            for kernel, source, x, y, shared, *scalars in rows]


def find_entry(ptx: str, kernel: str) -> tuple[str, int]:
    """Symbol and threads of a kernel."""
    symbols = ENTRY.findall(ptx)
    for symbol, name in zip(symbols, toolchain.demangle(symbols)):
        found = kernel_report.ENTRY.search(name)
        if found and kernel_report.short_name(found.group(1)) == kernel:
            return symbol, int(found.group(2))
    raise AssertionError(f"{kernel}: not in the PTX")


def request(launch: Launch, symbol: str, threads: int) -> dict:
    """The verifier's input."""
    arguments, declarations = [], []
    for scalar in launch.scalars:
        offset, kind, value = scalar.split(":")
        field = {"parameter": f"{symbol}_param_0", "offset": int(offset)}
        if kind == "pointer":
            declarations.append({**field, "type": "pointer"})
        elif kind == "null":
            arguments.append({**field, "type": "pointer", "value": None})
        else:
            arguments.append({**field, "type": kind, "value": int(value)})
    return {"schema": "spverify.kernel-input/v1", "entry": symbol, "declarations": declarations,
            "arguments": arguments,
            "launch": {"grid_dim": [*launch.grid, 1], "block_dim": [threads, 1, 1],
                       "cluster_dim": [1, 1, 1], "dynamic_shared_bytes": launch.shared_bytes}}


def ask(ptx: pathlib.Path, asked: dict) -> dict:
    """The verifier's answer; its exit code says nothing, "result" does."""
    path = str(toolchain.tools())
    if path not in sys.path:
        sys.path.append(path)
    sentryward = importlib.import_module("sentryward")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "input.json"
        path.write_text(json.dumps(asked), encoding="utf-8")
        return sentryward.verify(ptx, input=path, timeout_seconds=TIMEOUT_S)


def verify(launch: Launch) -> dict:
    ptx = toolchain.compile_one(launch.source, ARCH, "ptx").path
    symbol, threads = find_entry(ptx.read_text(encoding="utf-8"), launch.kernel)
    return ask(ptx, request(launch, symbol, threads))


def reason(answer: dict) -> str:
    """race_free, or the result with the codes of its diagnostics."""
    codes = sorted({diagnostic["code"] for diagnostic in answer.get("diagnostics", [])})
    return " ".join([answer["result"], *codes])


def main() -> None:
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    for launch in launches():
        if part in launch.kernel:
            answer = verify(launch)
            print(f"{launch.kernel}: {reason(answer)}, {answer['elapsed_seconds']:.1f} s")
            for diagnostic in answer.get("diagnostics", []):
                print("  ", json.dumps(diagnostic)[:500])


if __name__ == "__main__":
    main()
