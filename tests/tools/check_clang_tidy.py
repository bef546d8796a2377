"""Runs clang-tidy, and with it clang's thread-safety analysis, over our C++ files as .clang-tidy says.

Needs the release build's compile_commands.json and generated headers. Prints every finding once and
exits 1 if there is any. A file without findings is remembered by what the compiler reads of it, in
the cache folder that deploy/setup.sh uses, and not looked at again until that changes:
    python check_clang_tidy.py [PATH PREFIX...]
Without prefixes it looks at what is shipped, not at tests/.
"""

import concurrent.futures
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import time

import compile_commands
import tree

CLANG_TIDY = pathlib.Path(sys.prefix) / "bin/clang-tidy"
CONFIG = tree.ROOT / ".clang-tidy"
SHIPPED = ["client/", "kernels/", "server/"]
KEEP_SECONDS = 30 * 24 * 3600
FINDING = re.compile(r"^(\S+:\d+:\d+: (?:warning|error): .*)$", re.MULTILINE)


def cache_folder() -> pathlib.Path:
    parent = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    cache = os.environ.get("STRUCTATTN_CACHE") or pathlib.Path(parent) / "structattn"
    folder = pathlib.Path(cache) / "clang-tidy"
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.stat().st_mtime < time.time() - KEEP_SECONDS:
            entry.unlink(missing_ok=True)
    return folder


def fingerprint(command: compile_commands.Command, root: pathlib.Path) -> str:
    """Of all that the findings depend on but the checker and its settings. Comments are part of it,
    for the NOLINTs in them."""
    read = subprocess.run(["g++", *command.arguments, "-E", "-C", command.path], cwd=root,
                          check=True, capture_output=True).stdout
    everything = " ".join(command.arguments).encode() + b"\0" + read
    return hashlib.sha256(everything.replace(str(root).encode(), b"")).hexdigest()


def findings(command: compile_commands.Command, root: pathlib.Path) -> list[str]:
    run = subprocess.run([CLANG_TIDY, "--quiet", f"--config-file={CONFIG}", command.path, "--",
                          *command.arguments], cwd=root, capture_output=True, text=True)
    if run.returncode == 0:
        return []
    text = (run.stdout + run.stderr).replace(f"{root}/", "")
    return FINDING.findall(text) or [f"{command.path}: {text}"]


def violations(prefixes: list[str], root: pathlib.Path = tree.ROOT) -> list[str]:
    version = subprocess.run([CLANG_TIDY, "--version"], check=True, capture_output=True).stdout
    settings = hashlib.sha256(version + CONFIG.read_bytes()).hexdigest()
    cache = cache_folder()

    def remembered(command: compile_commands.Command) -> list[str]:
        clean = cache / hashlib.sha256((settings + fingerprint(command, root)).encode()).hexdigest()
        found = [] if clean.exists() else findings(command, root)
        if not found:
            clean.touch()
        return found

    chosen = [command for command in compile_commands.commands()
              if command.path.startswith(tuple(prefixes))]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return sorted({line for lines in pool.map(remembered, chosen) for line in lines})


if __name__ == "__main__":
    lines = violations(sys.argv[1:] or SHIPPED)
    print("\n".join(lines), end="\n" if lines else "")
    sys.exit(1 if lines else 0)
