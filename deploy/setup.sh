#!/usr/bin/env bash
# Installs what the build, the tests and the quickstart need: Debian packages, LibTorch, a Python
# environment. Downloads go into a cache folder that all clones share; the clone gets links below .deps.
# It never builds anything, and never touches the Python installations of the machine.
set -Eeuo pipefail

usage() {
  cat <<'TEXT'
usage: deploy/setup.sh [--gpu | --cpu]
  --gpu  also install the CUDA libraries of LibTorch, and nvcc where the machine has none
         (default where there is an NVIDIA device)
  --cpu  leave them out
environment: STRUCTATTN_CACHE  the cache folder, by default ~/.cache/structattn
TEXT
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${STRUCTATTN_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set, so set STRUCTATTN_CACHE}/.cache}/structattn}

# What CMake looks for, in the order of deploy/cmake/dependencies.cmake, then tools.
packages=(
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc libabsl-dev
  libspdlog-dev libssl-dev libxxhash-dev nlohmann-json3-dev libcli11-dev libhwy-dev libgtest-dev libgmock-dev
  libboost-context-dev
  g++ cmake ninja-build ccache mold python3 python3-venv ca-certificates
)

say() { printf 'setup: %s\n' "$*" >&2; }
die() { trap - ERR; say "error: $*"; exit 1; }
trap 'die "line $LINENO failed: $BASH_COMMAND"' ERR

# run_logged COMMAND...: quiet when it works, the end of its output when it does not.
run_logged() {
  local log=$cache/setup.log
  "$@" >"$log" 2>&1 </dev/null && return
  tail -n 25 "$log" >&2
  die "failed: $* (whole output: $log)"
}

gpu=auto
for argument in "$@"; do
  case $argument in
    --gpu) gpu=yes ;;
    --cpu) gpu=no ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "$argument: not an option" ;;
  esac
done
if [[ $gpu == auto ]]; then
  if [[ -e /dev/nvidiactl ]] || command -v nvidia-smi >/dev/null; then gpu=yes; else gpu=no; fi
fi

[[ $(uname -sm) == "Linux x86_64" ]] || die "$(uname -sm): only Linux x86_64 is supported"
command -v apt-get >/dev/null || die "no apt-get: Debian 12 is supported; install by hand: ${packages[*]}"
mkdir -p "$cache" "$root/.deps" || die "cannot write to $cache and $root/.deps"
exec 9>"$cache/lock"
flock 9  # two clones that set up at once wait for each other

install_packages() {
  local missing=() package sudo=()
  for package in "${packages[@]}"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
      missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "needs root or sudo to install: ${missing[*]}"
    sudo=(sudo)
  fi
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  run_logged "${sudo[@]}" apt-get update
  run_logged "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "${missing[@]}"
}

# link TARGET NAME: .deps/NAME -> TARGET, replacing an older link but nothing else.
link() {
  local path=$root/.deps/$2
  [[ ! -e $path || -L $path ]] || die "$path is in the way: it is not a link made by this script"
  [[ $(readlink "$path" || true) == "$1" ]] || ln -sfn "$1" "$path"
}

key_of() { cat "$@" | sha256sum | cut -c 1-12; }

# Debian's own Python, whatever else is on PATH: its version is known.
install_venv() {
  local requirements=$root/tests/requirements.txt venv
  venv=$cache/venv-$(key_of "$requirements")
  if [[ ! -e $venv/complete ]]; then
    say "installing the tests' Python packages into $venv"
    rm -rf "$venv"
    run_logged /usr/bin/python3 -m venv "$venv"
    run_logged "$venv/bin/pip" install --disable-pip-version-check -r "$requirements"
    touch "$venv/complete"
  fi
  link "$venv" venv
}

# install_wheels FOLDER KIND WHAT [PIP OPTION...]: downloads the wheels of
# deploy/requirements/KIND.txt, checks their hashes and unpacks them into FOLDER.
install_wheels() {
  local folder=$1 kind=$2 what=$3 downloads
  local requirements=$root/deploy/requirements/$kind.txt
  local unpack=$root/deploy/unpack_wheel.py complete
  shift 3
  complete=$folder/complete-$kind-$(key_of "$requirements" "$unpack")
  [[ ! -e $complete ]] || return 0
  say "downloading $what"
  mkdir -p "$folder"
  rm -rf "$cache"/download.*  # of runs that were killed
  downloads=$(mktemp -d "$cache/download.XXXXXX")
  run_logged "$root/.deps/venv/bin/pip" download --disable-pip-version-check --no-cache-dir \
    --no-deps --only-binary=:all: --require-hashes "$@" -d "$downloads" -r "$requirements"
  run_logged "$root/.deps/venv/bin/python" "$unpack" "$downloads" "$folder" "$kind"
  rm -rf "$downloads"
  touch "$complete"
}

find_nvcc() { command -v nvcc || [[ -x /usr/local/cuda/bin/nvcc ]]; }

# The wheels' own layout is kept: LibTorch's libraries look for CUDA's in ../../nvidia.
install_libtorch() {
  local folder
  folder=$cache/libtorch-$(key_of "$root/deploy/requirements/libtorch.txt")
  # One wheel serves every Python: its libraries do not depend on the version it was built for.
  install_wheels "$folder" libtorch "LibTorch (540 MB)" --python-version 3.11 \
    --implementation cp --abi cp311 --abi none --platform manylinux_2_28_x86_64 \
    --platform manylinux_2_25_x86_64 --platform manylinux_2_17_x86_64
  link "$folder/torch" torch
  [[ $gpu == yes ]] || return 0
  install_wheels "$folder" cuda-libraries "the CUDA libraries of LibTorch (2.2 GB)"
  if ! find_nvcc >/dev/null; then
    install_wheels "$folder" cuda-compiler "the CUDA compiler (115 MB)"
    link "$folder/nvidia/cu13" cuda
  fi
}

# For tests/static, which look at what nvcc makes of the kernels.
install_static_tools() {
  local folder
  find_nvcc >/dev/null || [[ -x $root/.deps/cuda/bin/nvcc ]] || return 0
  folder=$cache/static-tools-$(key_of "$root/deploy/requirements/static-tools.txt")
  install_wheels "$folder" static-tools "the tools of tests/static (25 MB)" --python-version 3.11 \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64
  link "$folder" static-tools
}

install_packages
install_venv
install_libtorch
install_static_tools
say "ready (cache: $cache)"
