#!/usr/bin/env bash
# Runs the tests that take minutes (marked `long`): large random inputs against the oracles. It
# builds what they need, writes the dated results into docs/long_evidence.md, and ends with
# `N passed, N failed`. tests/run.sh runs a short part of each of these tests.
set -Eeuo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
case ${1-} in
  -h | --help)
    printf 'usage: tests/long.sh [PYTEST_ARGUMENT...]   (-k NAME takes the tests with that name)\n'
    exit 0
    ;;
esac

export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
deploy/setup.sh
mkdir -p build/release
cmake --preset release >build/release/build.log
cmake --build --preset release >>build/release/build.log

cache=${STRUCTATTN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/structattn}
export STRUCTATTN_TEST_MODELS=${STRUCTATTN_TEST_MODELS:-$cache/models}
tests/models/fetch.sh "$STRUCTATTN_TEST_MODELS"

results=build/release/results/long.xml
rm -f "$results"
export STRUCTATTN_BIN=$root/build/release/bin PYTHONDONTWRITEBYTECODE=1
.deps/venv/bin/python -m pytest -c tests/pytest.ini --rootdir tests tests -m long \
  -o junit_logging=system-out -o junit_log_passing_tests=true --junitxml "$results" "$@" || true

# A part of the tests is no evidence of the whole.
(($#)) || python3 tests/tools/evidence.py "$results" docs/long_evidence.md
python3 tests/tools/summary.py "$results"
