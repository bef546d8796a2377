"""Checks that code and documents use one word for one thing: none of the patterns in banned_words.txt.

A pattern is looked for in the path and in every line of a file; data files (check_words.py has their
suffixes) and this check's own list may hold any word. Prints one line per violation, with the word to
use instead, and exits 1 if there is any:
    python check_banned_words.py [ROOT]
"""

import pathlib
import re
import sys

import check_words
import tree

LIST = pathlib.Path(__file__).with_name("banned_words.txt")


def banned_words() -> list[tuple[re.Pattern, str]]:
    """The pattern and what to write instead, from the lines `PATTERN -> WORD` of the list."""
    pairs = [line.split(" -> ") for line in LIST.read_text(encoding="utf-8").splitlines()
             if line and not line.startswith("#")]
    return [(re.compile(pattern.strip()), instead.strip()) for pattern, instead in pairs]


def violations_of(path: str, text: str, banned: list) -> list[str]:
    places = [(path, path)]
    places += [(f"{path}:{number}", line) for number, line in enumerate(text.split("\n"), 1)]
    return [f"{place}: {match.group()}: {instead}" for place, line in places
            for pattern, instead in banned for match in pattern.finditer(line)]


def violations(root: pathlib.Path) -> list[str]:
    banned = banned_words()
    return [line for path in tree.files(root) if not check_words.is_data(path)
            for line in violations_of(path, tree.text(root, path), banned)]


if __name__ == "__main__":
    lines = violations(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else tree.ROOT)
    print("\n".join(lines), end="\n" if lines else "")
    sys.exit(1 if lines else 0)
