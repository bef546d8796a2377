"""Adds up the JUnit results of several test runners: names of what failed, then the one line
`N passed, N failed` (`, N skipped` when some were).

    python summary.py RESULTS.xml...
Exits 1 if anything failed. A file that is missing, unreadable or empty is a failure too: a runner that
crashed has passed nothing. Never counts a test that did not run as passed.
"""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree

# ctest calls a test "skipped" also when it could not start it; only these reasons are the test's own.
CTEST_SKIP_REASONS = ("SKIP_REGULAR_EXPRESSION_MATCHED", "SKIP_RETURN_CODE")


def outcome(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    skipped = case.find("skipped")
    if case.get("status") == "notrun":
        reason = skipped.get("message", "") if skipped is not None else ""
        return "skipped" if reason.startswith(CTEST_SKIP_REASONS) else "failed"
    return "skipped" if skipped is not None or case.get("status") == "disabled" else "passed"


def read(path: pathlib.Path) -> list[tuple[str, str]]:
    """(name, outcome) of every test case; a failure in the file's name if there are none."""
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))
    except (OSError, ElementTree.ParseError) as error:
        return [(f"{path.stem}: {error}", "failed")]
    if not cases:
        return [(f"{path.stem}: no test ran", "failed")]
    return [(name_of(case), outcome(case)) for case in cases]


def name_of(case: ElementTree.Element) -> str:
    folder, name = case.get("classname", ""), case.get("name", "?")
    return name if folder in ("", name) else f"{folder}.{name}"


def summarise(paths: list[pathlib.Path]) -> tuple[list[str], str]:
    """The names of the failed tests and the closing line."""
    results = [result for path in paths for result in read(path)]
    count = {kind: sum(1 for _, what in results if what == kind)
             for kind in ("passed", "failed", "skipped")}
    line = f"{count['passed']} passed, {count['failed']} failed"
    if count["skipped"]:
        line += f", {count['skipped']} skipped"
    return [name for name, what in results if what == "failed"], line


def main() -> int:
    failed, line = summarise([pathlib.Path(name) for name in sys.argv[1:]])
    for name in failed:
        print(f"failed: {name}")
    print(line)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
