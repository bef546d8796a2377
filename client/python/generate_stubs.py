"""Writes the Python stubs of structattn.v1 below a folder: python generate_stubs.py DIR.

Used by setup.py and, with client/python itself as DIR, by the tests.
"""

import pathlib
import sys

from grpc_tools import protoc

PROTO_ROOT = pathlib.Path(__file__).resolve().parents[2] / "proto"


def generate(target: pathlib.Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    protos = sorted((PROTO_ROOT / "structattn" / "v1").glob("*.proto"))
    arguments = ["protoc", f"-I{PROTO_ROOT}", f"--python_out={target}", f"--pyi_out={target}",
                 f"--grpc_python_out={target}", *map(str, protos)]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed; its message is above")
    (target / "structattn" / "v1" / "__init__.py").write_text(
        '"""Generated stubs of structattn.v1."""\n')


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    generate(pathlib.Path(sys.argv[1]))
