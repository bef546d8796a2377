"""How the build compiles each of the project's C++ files, from the compile_commands.json that CMake
writes. Never builds anything: what is generated (the protocol's headers) must be there already.
"""

import collections
import dataclasses
import json
import pathlib
import shlex

import tree

BUILD = tree.ROOT / "build/release"


@dataclasses.dataclass(frozen=True)
class Command:
    path: str  # Relative to the project's folder.
    arguments: tuple[str, ...]  # Without the compiler, the input and the output.


def arguments_of(command: str) -> tuple[str, ...]:
    words = collections.deque(shlex.split(command)[1:])
    kept = []
    while words:
        word = words.popleft()
        if word in ("-o", "-c"):
            words.popleft()
        else:
            kept.append(word)
    return tuple(kept)


def commands(build: pathlib.Path = BUILD, root: pathlib.Path = tree.ROOT) -> list[Command]:
    """One for each of our .cc files, in the order of their paths; a file that several targets compile
    occurs once."""
    ours = set(tree.files(root, (".cc",)))
    found = {}
    for entry in json.loads((build / "compile_commands.json").read_text(encoding="utf-8")):
        file = pathlib.Path(entry["directory"], entry["file"])
        path = str(file.relative_to(root)) if file.is_relative_to(root) else ""
        if path in ours:
            found.setdefault(path, Command(path, arguments_of(entry["command"])))
    return [found[path] for path in sorted(found)]
