"""Checks that every header compiles as a translation unit of its own, so that it includes what it
needs. One that some .cc file includes first is proven by the build and not compiled here again; the
others are, with the flags of the .cc file nearest to them: CUDA's (.cuh) as the host emulator does.

Needs the release build's compile_commands.json and generated headers. Prints the first error of each
header that does not compile, and exits 1 if there is any:
    python check_headers.py
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

import check_includes
import compile_commands
import tree

EMULATOR = "tests/simt/machine.cc"
CUDA_COMPILER = re.compile(r"^CMAKE_CUDA_COMPILER:\w+=(.+)$", re.MULTILINE)


def included_first(sources: dict[str, str]) -> set[str]:
    """The headers that a .cc file of `sources` includes before all others."""
    matches = [check_includes.INCLUDE.search(text) for path, text in sources.items()
               if path.endswith(".cc")]
    return {match.group(2) for match in matches if match}


def nearest(path: str, commands: list[compile_commands.Command]) -> compile_commands.Command:
    """The command of EMULATOR for CUDA's sources, else of the file that shares most of the path."""
    def closeness(command):
        is_emulated = path.endswith(".cuh") and command.path == EMULATOR
        return is_emulated, len(os.path.commonprefix([path, command.path]))
    return max(commands, key=closeness)


def cuda_include(build: pathlib.Path) -> list[str]:
    """How to find <cuda_runtime.h>; nothing where there is no CUDA compiler."""
    compiler = CUDA_COMPILER.search((build / "CMakeCache.txt").read_text(encoding="utf-8"))
    return ["-isystem", str(pathlib.Path(compiler[1]).parent.parent / "include")] if compiler else []


def error_of(path: str, arguments: list[str], root: pathlib.Path) -> list[str]:
    run = subprocess.run(["g++", *arguments, "-w", "-fsyntax-only", "-x", "c++", path], cwd=root,
                         capture_output=True, text=True)
    if run.returncode == 0:
        return []
    errors = [line for line in run.stderr.splitlines() if "error:" in line]
    return [f"{path}: does not compile alone: {(errors or [run.stderr])[0]}"]


def violations(root: pathlib.Path = tree.ROOT, build: pathlib.Path = compile_commands.BUILD):
    sources = {path: tree.text(root, path) for path in tree.files(root, tree.CPP_SUFFIXES)}
    commands, cuda = compile_commands.commands(build, root), cuda_include(build)
    proven = included_first(sources)
    left = [path for path, text in sources.items()
            if path.endswith((".h", ".cuh")) and path not in proven
            and (cuda or "<cuda_runtime.h>" not in text)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(
            lambda path: error_of(path, [*nearest(path, commands).arguments, *cuda], root), left)
        return [line for lines in found for line in lines]


if __name__ == "__main__":
    lines = violations()
    print("\n".join(lines), end="\n" if lines else "")
    sys.exit(1 if lines else 0)
