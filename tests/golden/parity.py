"""Asks the server, over gRPC, what Hugging Face was asked, and wants the same answers in float32.

It makes the small random models, starts structattn-server on a free port, runs `structattn batch
--concurrency 8` on every model's prompts and compares with data/. By hand it prints one line per case and ends with `N passed, N failed`;
with --model real it asks the real models in --models-dir (see tests/models/fetch.sh). Needs numpy
and the standard library.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import cases
import compare
import make_models
from serving import serving

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def run_lines(binaries, subcommand, lines, flags):
    """Result objects of `structattn SUBCOMMAND` on prompt objects, in order."""
    with tempfile.TemporaryDirectory() as folder:
        given, answered = pathlib.Path(folder, "in.jsonl"), pathlib.Path(folder, "out.jsonl")
        given.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        command = [binaries / "structattn", subcommand, given, "-o", answered, *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.stdout.write(f"{subcommand} ended with {done.returncode}: {done.stderr[-2000:]}\n")
        return cases.read_jsonl(answered) if answered.exists() else []


def run_batch(binaries, address, model, lines, flags=()):
    return run_lines(binaries, "batch", lines,
                     ["--server", address, "--model", model, "--concurrency", "8",
                      "--max-tokens", str(cases.NEW_TOKENS), *flags])


def run_score(binaries, address, model, lines, flags=()):
    return run_lines(binaries, "score", lines,
                     ["--server", address, "--model", model, "--concurrency", "16", *flags])


def ask(binaries, address, name):
    """Yields (label, report): 16 tokens whatever they are; again until EOS where the reference
    meets one."""
    runs = [("16 tokens", ("--ignore-eos",), False)]
    if any(line["stop_after"] for line in cases.read_jsonl(cases.golden_path(name))[1:]):
        runs.append(("until EOS", (), True))
    for label, flags, stop_at_eos in runs:
        results = run_batch(binaries, address, name, cases.cases_of(name), flags)
        yield f"{name} {label}", compare.compare(results, cases.golden_path(name), stop_at_eos)


def model_folders(names, models_dir, scratch):
    """{name: folder}; makes the random models in `scratch`."""
    return {name: pathlib.Path(models_dir) / f"{name}-hf" if name in cases.REAL_MODELS
            else make_models.make_model(scratch, name) for name in names}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binaries", type=pathlib.Path, default=ROOT / "build/release/bin")
    parser.add_argument("--model", action="append",
                        help="small (default), real, or a model's name; repeatable")
    parser.add_argument("--models-dir", type=pathlib.Path, help="where fetch.sh put the real ones")
    options = parser.parse_args()
    groups = {"small": list(make_models.MODELS), "real": list(cases.REAL_MODELS)}
    names = [name for word in options.model or ["small"] for name in groups.get(word, [word])]
    unknown = [name for name in names if name not in groups["small"] + groups["real"]]
    if unknown:
        parser.error(f"--model {unknown[0]}: small, real, "
                     f"{', '.join(groups['small'] + groups['real'])} are known")
    if options.models_dir is None and any(name in cases.REAL_MODELS for name in names):
        parser.error("real models need --models-dir")

    passed = failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        models = model_folders(names, options.models_dir, scratch)
        with serving(options.binaries, models, pathlib.Path(scratch, "server.log")) as address:
            for label, report in (pair for name in names
                                  for pair in ask(options.binaries, address, name)):
                failed += bool(report.failures)
                passed += not report.failures
                print(f"{'FAIL' if report.failures else 'ok  '} {label}: {report.summary()}")
                for failure in report.failures[:5]:
                    print(f"       {failure}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
