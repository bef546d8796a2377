"""Compares the result lines of `structattn batch` with a golden file.

To run by hand: compare.py RESULTS.jsonl data/MODEL.jsonl [--stop-at-eos].
It prints counts, forks and the worst log-probability error, and exits 1 on any mismatch. Standard
library only; it asks no server.

A fork is a step where Hugging Face's own best two differ by less than 1e-3: either token is right,
and what follows another token cannot be compared, so the prompt ends there.
"""

import argparse
import dataclasses
import math
import sys

import cases

FORK = 1e-3
LOGPROB_TOLERANCE = 1e-3


@dataclasses.dataclass
class Report:
    """What a comparison found."""

    prompts: int = 0
    tokens: int = 0
    close_steps: int = 0  # Steps where the best two were within FORK.
    forks: int = 0  # Close steps where the other token was taken.
    worst_logprob_error: float = 0.0
    failures: list = dataclasses.field(default_factory=list)

    def summary(self):
        return (f"{self.prompts} prompts, {self.tokens} tokens, {len(self.failures)} mismatches, "
                f"{self.close_steps} close steps, {self.forks} forks, "
                f"worst logprob error {self.worst_logprob_error:.2e}")


def _first_difference(got, expected):
    for place, pair in enumerate(zip(got, expected)):
        if pair[0] != pair[1]:
            return f"[{place}] is {pair[0]}, expected {pair[1]}"
    return f"has {len(got)} entries, expected {len(expected)}"


def _compare_structure(result, golden, report):
    expected = {"prompt_token_ids": golden["prompt_token_ids"],
                "group_ids": cases.expand_runs(golden["group_ids"]),
                "position_ids": cases.expand_ramps(golden["position_ids"])}
    for field, values in expected.items():
        if result.get(field) != values:
            difference = _first_difference(result.get(field) or [], values)
            report.failures.append(f"{golden['id']}: {field}{difference}")
            return False
    return True


def _compare_steps(result, golden, count, report):
    """Compares tokens and log-probabilities; returns False at a fork or a mismatch."""
    name = golden["id"]
    for step in range(count):
        if step >= len(result["token_ids"]) or step >= len(result["logprobs"]):
            report.failures.append(f"{name}: {len(result['token_ids'])} tokens and "
                                   f"{len(result['logprobs'])} logprobs, expected {count}")
            return False
        token, logprob = result["token_ids"][step], result["logprobs"][step]
        margin = golden["margins"][step]
        report.tokens += 1
        report.close_steps += margin < FORK
        same = token == golden["token_ids"][step]
        if not same and margin >= FORK:
            report.failures.append(f"{name}: token_ids[{step}] is {token}, expected "
                                   f"{golden['token_ids'][step]} (margin {margin})")
            return False
        expected = golden["logprobs"][step] - (0.0 if same else margin)
        error = abs(logprob - expected)
        report.worst_logprob_error = max(report.worst_logprob_error, error)
        if not math.isfinite(error) or error > LOGPROB_TOLERANCE:
            report.failures.append(f"{name}: logprobs[{step}] is {logprob}, expected {expected}")
            return False
        if not same:
            report.forks += 1
            return False
    return True


def _compare_one(result, golden, stop_at_eos, report):
    report.prompts += 1
    if "error" in result:
        report.failures.append(f"{golden['id']}: {result['error']}")
        return
    if not _compare_structure(result, golden, report):
        return
    stopped = stop_at_eos and golden["stop_after"] is not None
    count = golden["stop_after"] if stopped else len(golden["token_ids"])
    if not _compare_steps(result, golden, count, report):
        return
    reason = "stop" if stopped else "length"
    if len(result["token_ids"]) != count or result["finish_reason"] != reason:
        report.failures.append(f"{golden['id']}: ended after {len(result['token_ids'])} tokens by "
                               f"{result['finish_reason']}, expected {count} by {reason}")


def compare(results, golden_path, stop_at_eos=False):
    """results: result objects in the order of the golden file's cases."""
    goldens = cases.read_jsonl(golden_path)[1:]
    report = Report()
    if [result.get("id") for result in results] != [golden["id"] for golden in goldens]:
        report.failures.append(f"ids: {len(results)} results do not answer the {len(goldens)} "
                               f"cases of {golden_path} in order")
        return report
    for result, golden in zip(results, goldens):
        _compare_one(result, golden, stop_at_eos, report)
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results")
    parser.add_argument("golden")
    parser.add_argument("--stop-at-eos", action="store_true",
                        help="the results were made without --ignore-eos")
    options = parser.parse_args()
    report = compare(cases.read_jsonl(options.results), options.golden, options.stop_at_eos)
    for failure in report.failures[:20]:
        print(failure)
    print(report.summary())
    sys.exit(1 if report.failures else 0)


if __name__ == "__main__":
    main()
