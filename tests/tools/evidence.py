"""Writes the results of tests/long.sh as a page: what ran, on which machine, and what each test
printed last.

    python evidence.py RESULTS.xml PAGE.md
Reads pytest's JUnit results. Never judges: summary.py counts.
"""

import datetime
import pathlib
import platform
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import summary

HEADER = """# Long evidence

What `tests/long.sh` found on {date}, at commit {commit}, on {machine}. The script writes this page.

| test | result | seconds | what it printed last |
|---|---|---|---|
"""


def last_line(case: ElementTree.Element) -> str:
    """The last line that the test printed; pytest's own rulers are left out."""
    lines = [line.strip() for line in (case.findtext("system-out") or "").splitlines()]
    lines = [line for line in lines if line and not line.startswith("---")]
    return lines[-1].replace("|", "\\|") if lines else ""


def rows(results: pathlib.Path) -> list[str]:
    """One row of the table a test."""
    return [f"| {summary.name_of(case)} | {summary.outcome(case)} | "
            f"{float(case.get('time', 0)):.0f} | {last_line(case)} |"
            for case in ElementTree.parse(results).iter("testcase")]


def machine() -> str:
    """The processor and how many of it, as Linux names them."""
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    models = [line.split(":", 1)[1].strip() for line in text.splitlines()
              if line.startswith("model name")]
    return f"{len(models)} x {models[0]}" if models else platform.machine()


def main() -> int:
    results, page = map(pathlib.Path, sys.argv[1:])
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], check=True,
                            capture_output=True, text=True).stdout.strip()
    header = HEADER.format(date=datetime.date.today(), commit=commit, machine=machine())
    page.write_text(header + "\n".join(rows(results)) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
