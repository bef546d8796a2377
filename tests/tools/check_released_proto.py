"""Checks with `buf breaking` that proto/ still serves the clients of the last release: the newest tag
v* that HEAD descends from. Before the first release there is nothing to break, and it says so.

Prints buf's findings, one a line, and exits 1 if there is any:
    python check_released_proto.py [ROOT]
Needs the history and the tags of the repository (a shallow clone has neither).
"""

import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile

import tree

BUF = pathlib.Path(sys.prefix) / "bin/buf"


def last_release(root: pathlib.Path) -> str:
    """The tag, or nothing."""
    run = subprocess.run(["git", "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"], cwd=root,
                         capture_output=True, text=True)
    return run.stdout.strip()


def violations(root: pathlib.Path) -> list[str]:
    release = last_release(root)
    if not release:
        return []
    archive = subprocess.run(["git", "archive", release, "proto"], cwd=root, check=True,
                             capture_output=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder)
        run = subprocess.run([BUF, "breaking", "--against", f"{folder}/proto"], cwd=root / "proto",
                             capture_output=True, text=True)
    return (run.stdout + run.stderr).splitlines()


if __name__ == "__main__":
    project = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else tree.ROOT
    lines = violations(project)
    against = last_release(project) or "nothing: there is no release yet"
    print("\n".join(lines) if lines else f"compared with {against}")
    sys.exit(1 if lines else 0)
