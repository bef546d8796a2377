#!/usr/bin/env bash
# Installs what is missing, builds, runs every test, and ends with `N passed, N failed`. It exits
# 0 only if nothing failed; a build that fails counts as one failure.
set -Eeuo pipefail

usage() {
  cat <<'TEXT'
usage: tests/run.sh [--fast]
  --fast  without the slow tests and those that need the real models
environment: STRUCTATTN_TEST_MODELS  where the real models are or shall go,
             by default below the cache folder of deploy/setup.sh
TEXT
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
fast=
case ${1-} in
  '') ;;
  --fast) fast=yes ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

say() { printf 'test: %s\n' "$*" >&2; }

# A step before the tests failed: name it, and end with the line that counts.
broken() {
  trap - ERR
  printf 'failed: %s\n0 passed, 1 failed\n' "$1"
  exit 1
}
trap 'broken "tests/run.sh line $LINENO: $BASH_COMMAND"' ERR

# Lets clones in different folders share what ccache holds.
export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
deploy/setup.sh || broken "deploy/setup.sh"
mkdir -p build/release
say "building (log: build/release/build.log)"
build() { cmake --preset release && cmake --build --preset release; }
build >build/release/build.log 2>&1 || { tail -n 40 build/release/build.log; broken "build"; }

results=$root/build/release/results
rm -rf "$results"
mkdir -p "$results"
ctest_selection=() pytest_selection=()
cache=${STRUCTATTN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/structattn}
export STRUCTATTN_TEST_MODELS=${STRUCTATTN_TEST_MODELS:-$cache/models}
if [[ $fast ]]; then
  unset STRUCTATTN_TEST_MODELS
  ctest_selection=(-LE '^(slow|models)$')
  pytest_selection=(-m 'not slow and not models and not long')
else
  tests/models/fetch.sh "$STRUCTATTN_TEST_MODELS" || broken "tests/models/fetch.sh"
fi

# Exit codes are not looked at here: summary.py fails a runner that left no results behind.
say "running the C++ tests"
ctest --test-dir build/release --parallel 2 --timeout 900 --output-on-failure --no-tests=error \
  "${ctest_selection[@]}" --output-junit "$results/ctest.xml" || true
say "running the Python tests"
export STRUCTATTN_BIN=$root/build/release/bin PYTHONDONTWRITEBYTECODE=1
timeout 3000 .deps/venv/bin/python -m pytest -c tests/pytest.ini --rootdir tests tests \
  "${pytest_selection[@]}" --junitxml "$results/pytest.xml" || true

trap - ERR
python3 tests/tools/summary.py "$results/ctest.xml" "$results/pytest.xml"
