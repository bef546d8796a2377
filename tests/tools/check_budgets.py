"""Checks the budgets of size: files, functions, parameters, the share of tests, and repeated blocks.

PyPI's `lizard` is the parser. Prints one line per violation and exits 1 if there is any:
    python check_budgets.py [ROOT]
Data that a script made (unicode tables) is marked by the words "Made by" in its first five lines, and
only its length is not counted.
"""

import collections
import math
import pathlib
import sys

import lizard

import tree

MAX_FILE_LINES = 600
MAX_FILE_LINES_P95 = 450
MAX_FILE_LINES_MEDIAN = 120
MAX_FUNCTION_LINES = {"host": 90, "device": 160}
MAX_FUNCTION_LINES_P95 = 45
MAX_PARAMETERS = 6
MAX_PARAMETERS_P95 = 4
MIN_TEST_LINES_PER_CODE_LINE = 0.8
TWIN_LINES = 10


def percentile(values: list[int], share: float) -> int:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else 0


def over(name: str, value: int, limit: int, what: str) -> list[str]:
    return [f"{name}: {what} {value}, allowed {limit}"] if value > limit else []


def is_made(text: str) -> bool:
    return "Made by" in "\n".join(text.split("\n")[:5])


def check_files(sources: dict[str, str]) -> list[str]:
    lines = {path: text.count("\n") for path, text in sources.items() if not is_made(text)}
    sizes = list(lines.values())
    found = [line for path, size in lines.items()
             for line in over(path, size, MAX_FILE_LINES, "lines")]
    found += over("all files", percentile(sizes, 0.5), MAX_FILE_LINES_MEDIAN, "median of lines")
    return found + over("all files", percentile(sizes, 0.95), MAX_FILE_LINES_P95, "p95 of lines")


def check_functions(sources: dict[str, str]) -> list[str]:
    found, lengths, parameters = [], [], []
    for path, text in sources.items():
        if not path.endswith(tree.CPP_SUFFIXES + (".py",)) or is_made(text):
            continue
        kind = "device" if path.endswith((".cu", ".cuh")) else "host"
        for function in lizard.analyze_file.analyze_source_code(path, text).function_list:
            name = f"{path}:{function.start_line}: {function.name}"
            lengths += [function.length] if kind == "host" else []
            parameters.append(len(function.parameters))
            found += over(name, function.length, MAX_FUNCTION_LINES[kind], "lines")
            found += over(name, len(function.parameters), MAX_PARAMETERS, "parameters")
    found += over("host functions", percentile(lengths, 0.95), MAX_FUNCTION_LINES_P95, "p95 of lines")
    return found + over("functions", percentile(parameters, 0.95), MAX_PARAMETERS_P95,
                        "p95 of parameters")


def check_test_share(sources: dict[str, str]) -> list[str]:
    tests = sum(text.count("\n") for path, text in sources.items() if path.startswith("tests/"))
    code = sum(text.count("\n") for path, text in sources.items()
               if path.startswith(("client/", "server/", "kernels/")) and not is_made(text))
    if code and tests / code < MIN_TEST_LINES_PER_CODE_LINE:
        return [f"{tests} lines of tests for {code} of code: less than "
                f"{MIN_TEST_LINES_PER_CODE_LINE} to 1"]
    return []


def check_twins(sources: dict[str, str]) -> list[str]:
    """Blocks of TWIN_LINES lines that carry code and occur twice; only the first line of a longer
    match is reported. Lines without a letter (braces) and includes carry none."""
    seen, found, previous = {}, [], collections.defaultdict(lambda: -2)
    for path, text in sources.items():
        if not path.endswith(tree.CPP_SUFFIXES + (".py",)) or is_made(text):
            continue
        code = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)
                if any(letter.isalpha() for letter in line)
                and not line.lstrip().startswith(("//", "#", "import ", "from ", "using "))]
        for index in range(len(code) - TWIN_LINES + 1):
            block = tuple(line for _, line in code[index:index + TWIN_LINES])
            place = f"{path}:{code[index][0]}"
            first = seen.setdefault(block, place)
            if first != place:
                if previous[path] != index - 1:
                    found.append(f"{place}: {TWIN_LINES} lines that are also at {first}")
                previous[path] = index
    return found


def violations(root: pathlib.Path) -> list[str]:
    sources = {path: tree.text(root, path) for path in tree.files(root, tree.CODE_SUFFIXES)}
    return (check_files(sources) + check_functions(sources) + check_test_share(sources)
            + check_twins(sources))


if __name__ == "__main__":
    lines = violations(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else tree.ROOT)
    print("\n".join(lines), end="\n" if lines else "")
    sys.exit(1 if lines else 0)
