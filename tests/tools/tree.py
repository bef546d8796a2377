"""The files of the project, as git knows them: what the checks beside it look at. Never writes."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
CPP_SUFFIXES = (".h", ".cc", ".cu", ".cuh")
CODE_SUFFIXES = CPP_SUFFIXES + (".py", ".sh", ".proto", ".cmake")


def files(root: pathlib.Path, suffixes: tuple = ()) -> list[str]:
    """Paths relative to root that are tracked, or new and not ignored; all, or by suffix."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root,
        check=True, capture_output=True).stdout.decode()
    paths = sorted(set(filter(None, listing.split("\0"))))
    return [path for path in paths
            if (root / path).is_file() and (not suffixes or path.endswith(suffixes))]


def text(root: pathlib.Path, path: str) -> str:
    """The file's text, or nothing for a binary file."""
    data = (root / path).read_bytes()
    return "" if b"\0" in data else data.decode("utf-8", errors="replace")
