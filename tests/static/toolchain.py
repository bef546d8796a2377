"""Where nvcc and the binary tools are, and compiled kernels: each source alone, for each
architecture, kept below build/static-evidence by the content of what went into it.

Nothing is installed here: deploy/setup.sh does that, where
there is an nvcc. A tool that is missing raises Missing, which the tests turn into a skip.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import os
import pathlib
import re
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
ARCHITECTURES = (80, 86, 89, 90, 100, 120)
JOBS = min(4, os.cpu_count() or 1)  # nvcc runs so many times at once.
# A source compiles alone with these; a spill or an array in local memory ends the compilation.
FLAGS = ["-std=c++20", "-O3", "--expt-relaxed-constexpr", "--extended-lambda", "-I.",
         "-Ibuild/release"]
STRICT = ["-Xptxas", "-v,-warn-spills,-warn-lmem-usage,-Werror"]
INCLUDE = re.compile(r'^\s*#\s*include\s+"(kernels/[^"]+)"', re.MULTILINE)


class Missing(Exception):
    """A tool that this machine lacks."""


class CompileError(Exception):
    """What nvcc said."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    source: str  # "kernels/norm/rms_norm_cuda.cu"
    arch: int
    path: pathlib.Path
    log: str  # What ptxas -v printed.


@functools.cache
def nvcc() -> pathlib.Path:
    for path in (shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc", ROOT / ".deps/cuda/bin/nvcc"):
        if path and pathlib.Path(path).exists():
            return pathlib.Path(path).resolve()
    raise Missing("no nvcc on this machine")


def cuda_include() -> pathlib.Path:
    return nvcc().parent.parent / "include"


@functools.cache
def tools() -> pathlib.Path:
    """The folder with the packages of deploy/requirements/static-tools.txt."""
    folder = pathlib.Path(os.environ.get("STRUCTATTN_STATIC_TOOLS", ROOT / ".deps/static-tools"))
    if not (folder / "nvidia/cu13/bin/nvdisasm").exists():
        raise Missing(f"no tools of deploy/requirements/static-tools.txt in {folder}")
    return folder


def tool(name: str) -> pathlib.Path:
    return tools() / "nvidia/cu13/bin" / name


def run(arguments: list, **options) -> str:
    """Standard output of a program that must succeed."""
    done = subprocess.run(list(map(str, arguments)), cwd=ROOT, check=False, capture_output=True,
                          text=True, **options)
    assert done.returncode == 0, f"{arguments}: {done.stderr or done.stdout}"
    return done.stdout


def sources() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "kernels").rglob("*.cu"))


def read_with_includes(source: str) -> dict[str, str]:
    """Text of a file and of everything of kernels/ that it includes, directly or not."""
    texts, todo = {}, [source]
    while todo:
        name = todo.pop()
        if name not in texts:
            texts[name] = (ROOT / name).read_text(encoding="utf-8")
            todo += INCLUDE.findall(texts[name])
    return texts


@functools.cache
def nvcc_version() -> str:
    return run([nvcc(), "--version"])


def compile_one(source: str, arch: int, kind: str = "cubin") -> Compiled:
    """kind: cubin or ptx."""
    flags = [*FLAGS, *(STRICT if kind == "cubin" else ["-lineinfo"]), f"-arch=sm_{arch}", f"-{kind}"]
    key = hashlib.sha256("\0".join(
        [nvcc_version(), *flags, source, *read_with_includes(source).values()]).encode()).hexdigest()
    stem = pathlib.PurePath(source).stem
    path = ROOT / "build/static-evidence" / f"{stem}.sm_{arch}.{key[:16]}.{kind}"
    log = path.with_suffix(path.suffix + ".log")
    if not (path.exists() and log.exists()):
        path.parent.mkdir(parents=True, exist_ok=True)
        for older in path.parent.glob(f"{stem}.sm_{arch}.*.{kind}*"):
            older.unlink()
        done = subprocess.run([nvcc(), *flags, source, "-o", path], cwd=ROOT, check=False,
                              capture_output=True, text=True)
        if done.returncode != 0:
            said = (done.stdout + done.stderr).split("\n")
            errors = [line for line in said if "error" in line] or said
            raise CompileError("\n".join([f"{source} for sm_{arch}:", *errors]))
        log.write_text(done.stdout + done.stderr, encoding="utf-8")
    return Compiled(source, arch, path, log.read_text(encoding="utf-8"))


def compile_all(architectures: tuple = ARCHITECTURES, kind: str = "cubin") -> list[Compiled]:
    """Every source for every architecture; slow sources first."""
    jobs = sorted(((source, arch) for source in sources() for arch in architectures),
                  key=lambda job: "attention" not in job[0])
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        return list(pool.map(lambda job: compile_one(*job, kind), jobs))


def demangle(symbols: list[str]) -> list[str]:
    return run(["c++filt"], input="\n".join(symbols)).split("\n")[:len(symbols)]
