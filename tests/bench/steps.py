"""Our engine's steps as a running program, and figures of rounds that are compared by their ratios.

It starts no peer and knows no bar. Standard library only.
"""

import json
import statistics
import subprocess


class StepBench:
    """A running step_bench; each call is one command and its answer."""

    def __init__(self, binaries, model, dtype, threads, quantization="stored"):
        self._process = subprocess.Popen(
            [binaries / "step_bench", model, dtype, str(threads), quantization],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = json.loads(self._process.stdout.readline())

    def ask(self, *words):
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait()


class Figures:
    """Named measurements, round by round; larger is better."""

    def __init__(self):
        self.values = {}

    def add(self, name, value):
        self.values.setdefault(name, []).append(value)

    def ratio(self, ours, theirs):
        """The median of the rounds' ratios."""
        return statistics.median(a / b for a, b in zip(self.values[ours], self.values[theirs]))

    def show(self):
        for name, values in self.values.items():
            print(f"  {name:34s} best {max(values):10.1f}  median {statistics.median(values):10.1f}")


def show_bar(what, value, bar, most=False):
    """Prints a figure beside its bar, which it must reach, or with `most` not exceed."""
    met = value <= bar if most else value >= bar
    print(f"  {what:52s} {value:7.3f}  bar {bar:5.3f}  {'met' if met else 'NOT met'}")
    return met
