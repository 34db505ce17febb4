#!/usr/bin/env bash
# Builds what tests/gpu-carried.sh runs on a machine with a GPU that has neither cargo nor a network: one folder of
# packed programs. Needs the Rust toolchain, g++, xz and Python with pip; no GPU. Where there is no nvcc, a CUDA compiler
# is installed from Python packages into CUDA_DIR.
#
#     tests/gpu-build.sh [FOLDER]          .gpu unless given
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.gpu}
export CUDA_HOME=${CUDA_HOME:-}
if [ -z "$CUDA_HOME" ] && nvcc=$(command -v nvcc); then
  CUDA_HOME=$(dirname "$(dirname "$nvcc")")
elif [ -z "$CUDA_HOME" ]; then
  dir=${CUDA_DIR:-$HOME/.cache/halftone-cuda13}
  CUDA_HOME=$dir/nvidia/cu13
  [ -x "$CUDA_HOME/bin/nvcc" ] || python3 -m pip install -q --no-deps --no-compile --only-binary=:all: --target "$dir" \
    nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 \
    nvidia-cuda-cccl==13.0.85
  [ -e "$CUDA_HOME/lib64" ] || ln -s lib "$CUDA_HOME/lib64"
  echo "INPUT($CUDA_HOME/lib/libcudart_static.a -ldl -lrt -lpthread)" > "$CUDA_HOME/lib/libcudart.so"
  # Opened at run time, as the flag below says; the linker only asks whether they are there.
  mkdir -p "$CUDA_HOME/lib/stubs"
  for library in cuda nvrtc curand cublas cublasLt; do : > "$CUDA_HOME/lib/stubs/lib$library.so"; done
  for library in cuda nvrtc curand cublas cublasLt; do
    echo '/* opened at run time */' > "$CUDA_HOME/lib/stubs/lib$library.so"
  done
fi
export CUDA_PATH=$CUDA_HOME PATH=$CUDA_HOME/bin:$PATH
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90} CUDARC_CUDA_VERSION=${CUDARC_CUDA_VERSION:-13000}
export NVCC_APPEND_FLAGS="-compress-mode=size"
# With an explicit target the flag does not reach build scripts, which would refuse it beside candle's own choice.
export RUSTFLAGS="${RUSTFLAGS:-} --cfg feature=\"dynamic-loading\""
target=(--target x86_64-unknown-linux-gnu --target-dir "${CARGO_TARGET_DIR:-target/cuda}")

built=$(mktemp)
trap 'rm -f "$built"' EXIT
json=--message-format=json-render-diagnostics
cargo test "${target[@]}" -p lm --features cuda --lib --test device --no-run $json > "$built"
cargo build "${target[@]}" -p lm --features cuda --example gpu_bench $json >> "$built"
cargo build "${target[@]}" --features cuda --bin halftone $json >> "$built"

rm -rf "$folder" && mkdir -p "$folder"
python3 - "$built" > "$folder/list" <<'PYTHON'
import json, sys

names = {"lm": "lm-tests", "device": "device", "gpu_bench": "gpu_bench", "halftone": "halftone"}
for line in open(sys.argv[1]):
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] in names:
        print(names[message["target"]["name"]], message["executable"])
PYTHON
while read -r name program; do strip -o "$folder/$name" "$program"; done < "$folder/list"
rm "$folder/list"
# In one stream: all of them hold the same kernels, which xz finds again within its window.
(cd "$folder" && tar c -- * | xz --lzma2=preset=3,dict=256MiB > programs.tar.xz && ls | grep -v xz | xargs rm)
du -h "$folder"/*
