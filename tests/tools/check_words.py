"""Checks that the tree speaks of the project alone: no unfinished work, no machine's own paths, no
hosts but the ones listed, nothing at the top level that does not belong there.

Prints one line per violation and exits 1 if there is any:
    python check_words.py [ROOT]
Never looks at data files (JSON, JSONL, text samples), where any word may occur.
"""

import pathlib
import re
import sys

import tree

TOP_LEVEL = {"CHANGELOG.md", "CMakeLists.txt", "CMakePresets.json", "CONTRIBUTING.md", "Dockerfile",
             "LICENSE", "README.md", "SECURITY.md", "client", "deploy", "docs", "kernels", "proto",
             "server", "tests"}
DATA_SUFFIXES = (".json", ".jsonl", ".txt", ".png", ".svg", ".safetensors", ".gguf")
NAMED_LIKE_CODE = ("CMakeLists.txt", "CMakePresets.json", "requirements.txt")

# Hosts that a reader is sent to: licences, formats and papers that something here implements.
HOSTS = {"www.apache.org", "arxiv.org", "example.com", "example.org", "json-schema.org",
         "huggingface.co", "git-lfs.github.com", "www.unicode.org", "unicode.org", "semver.org",
         "www.w3.org", "127.0.0.1", "localhost"}

UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
HOST = re.compile(r"https?://([^/\s:\"'`)>]+)")
# Folders in which a person's or a machine's own files live, at the start of a path.
MACHINE_PATH = re.compile(r"(?<![\w.$}/*-])/(?:home|Users|work|mnt|media)/\w")


def violations_of(path: str, text: str) -> list[str]:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        place = f"{path}:{number}"
        for match in UNFINISHED.finditer(line):
            found.append(f"{place}: {match.group()}: finish it or file an issue")
        for match in MACHINE_PATH.finditer(line):
            found.append(f"{place}: {match.group()}...: a path of one machine")
        for host in HOST.findall(line):
            if host not in HOSTS:
                found.append(f"{place}: host {host} is not in the list of this check")
    return found


def is_data(path: str) -> bool:
    return path.endswith(DATA_SUFFIXES) and not path.endswith(NAMED_LIKE_CODE)


def violations(root: pathlib.Path) -> list[str]:
    paths = tree.files(root)
    found = [f"{top}: does not belong to the top level"
             for top in sorted({path.split("/")[0] for path in paths})
             if not top.startswith(".") and top not in TOP_LEVEL]
    for path in paths:
        if not is_data(path):
            found += violations_of(path, tree.text(root, path))
    return found


if __name__ == "__main__":
    lines = violations(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else tree.ROOT)
    print("\n".join(lines), end="\n" if lines else "")
    sys.exit(1 if lines else 0)
