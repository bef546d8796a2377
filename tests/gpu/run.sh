#!/usr/bin/env bash
# Everything that needs a GPU: the tests of the emulator on the device, the same under
# compute-sanitizer, then the benches. It runs on a machine with a GPU, which needs a driver and no
# network: `--build` on another machine leaves all that is needed in build/gpu. It ends with the line
# `N passed, N failed` (`, N skipped`); without a device everything is skipped, and that is no failure.
#
# It was written without a GPU at hand: what comes after the look for a device has never run.
set -Eeuo pipefail

usage() {
  cat <<'TEXT'
usage: tests/gpu/run.sh [--build]
  --build  only build the programs, with the libraries they need, into build/gpu
TEXT
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
folder=$root/build/gpu
programs=(gpu_tests gpu_bench)
sanitizers=(memcheck racecheck initcheck synccheck)
passed=0 failed=0 skipped=0

say() { printf 'gpu: %s\n' "$*"; }

finish() {
  local line="$passed passed, $failed failed"
  ((skipped == 0)) || line+=", $skipped skipped"
  printf '%s\n' "$line"
  ((failed == 0))
  exit
}

# The C library itself comes from the machine that runs the programs.
copy_libraries() {
  local library
  ldd "$1" | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | while read -r library; do
    case ${library##*/} in
      libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | librt.so.*) ;;
      *) cp -L "$library" "$folder/lib/" ;;
    esac
  done
}

build() {
  local program
  cmake --preset release >/dev/null
  cmake --build --preset release --target "${programs[@]}"
  mkdir -p "$folder/lib"
  for program in "${programs[@]}"; do
    cp "build/release/bin/$program" "$folder/"
    copy_libraries "$folder/$program"
  done
}

case ${1-} in
  '') ;;
  --build) build; exit ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

if [[ ! -e /dev/nvidiactl && ! -e /dev/dxg ]]; then
  say "skipped: no NVIDIA device on this machine"
  skipped=$((2 + ${#sanitizers[@]}))
  finish
fi
[[ -x $folder/gpu_tests && -x $folder/gpu_bench ]] || build
export LD_LIBRARY_PATH=$folder/lib

say "running the tests on the device"
rm -f "$folder/results.xml"
"$folder/gpu_tests" --gtest_brief=1 --gtest_output="xml:$folder/results.xml" || true
line=$(python3 tests/tools/summary.py "$folder/results.xml" | tee /dev/stderr | tail -n 1 || true)
if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed(,\ ([0-9]+)\ skipped)?$ ]]; then
  passed=$((passed + BASH_REMATCH[1]))
  failed=$((failed + BASH_REMATCH[2]))
  skipped=$((skipped + ${BASH_REMATCH[4]:-0}))
else
  failed=$((failed + 1))
fi

# The whole cover takes hours under a sanitizer; the edges reach every kernel.
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
for name in "${sanitizers[@]}"; do
  if [[ ! -x $sanitizer ]]; then
    say "skipped: $name: no compute-sanitizer on this machine"
    skipped=$((skipped + 1))
  elif "$sanitizer" --tool "$name" --error-exitcode 99 "$folder/gpu_tests" --gtest_brief=1 \
    --gtest_filter='*Edge*:*RmsNorm*:*Rope*:*Silu*:*Embedding*:*PickTokens*:*Int8LinearInv*' \
    >"$folder/$name.log" 2>&1; then
    say "ok: $name"
    passed=$((passed + 1))
  else
    say "FAILED: $name"
    tail -n 40 "$folder/$name.log"
    failed=$((failed + 1))
  fi
done

say "benches; % of the data sheet's dense 16-bit peak and memory bandwidth at the highest clocks"
if "$folder/gpu_bench"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
finish
