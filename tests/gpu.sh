#!/usr/bin/env bash
# What a machine with an NVIDIA GPU has to show: the same numbers as the CPU, no errors of memory, and how fast it is.
#
#     tests/gpu.sh [DEVICE] [PYTHON]        cuda:0 unless given; PYTHON has torch, transformers and trl to race against
#
# Needs the CUDA toolkit (nvcc) and the Rust toolchain. Figures are added to tests/bench/results.jsonl.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${1:-cuda:0}
peer=${2:+--peer $2}

echo "== parity with the CPU: each operation in f32 and bf16, and its gradients"
HALFTONE_TEST_DEVICE=$device cargo test --release -p lm --features cuda --lib

echo "== parity with the CPU: log-probabilities, training and generation of five models, in f32 and bf16"
HALFTONE_TEST_DEVICE=$device cargo test --release -p lm --features cuda --test device -- --nocapture --test-threads 1

echo "== the main job on the device: the same verdicts and a policy as good"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo run --release --features cuda -- --work "$work/store" run pipelines/quickstart.yaml --device "$device"
cargo run --release --features cuda -- --work "$work/store" inspect evaluation.summary

if [ "$(nvidia-smi -L | wc -l)" -gt 1 ]; then
  echo "== two GPUs over NCCL: the weights that one GPU trains"
  weights() { (cd "$work/$1" && find . -name '*.safetensors' -exec sha256sum {} + | sort -k 2); }
  for devices in cuda:0 cuda:0,cuda:1; do
    cargo run --release --features cuda -- --work "$work/$devices" run pipelines/quickstart.yaml --device "$devices" \
      --set policy.batch.ranks=2
  done
  diff <(weights cuda:0) <(weights cuda:0,cuda:1)
else
  echo "== two GPUs over NCCL: skipped, there is one GPU"
fi

if command -v compute-sanitizer > "$work/found" 2>&1; then
  programs=$(cargo test --release -p lm --features cuda --lib --test device --no-run --message-format=json 2> "$work/build")
  program() { echo "$programs" | sed -n "s/.*\"executable\":\"\([^\"]*$1-[^\"]*\)\".*/\1/p" | tail -n 1; }
  sanitize() {
    echo "== compute-sanitizer: $1"
    HALFTONE_TEST_DEVICE=$device HALFTONE_TEST_MODEL=qwen2 RUST_TEST_THREADS=1 HALFTONE_TEST_ROOT=$PWD \
      compute-sanitizer --error-exitcode 1 --tool "$@"
  }
  for part in log_probabilities training generation; do
    sanitize memcheck "$(program device)" "$part" --nocapture
  done
  sanitize racecheck "$(program lm)" ops::cuda::tests::attention
  sanitize synccheck "$(program lm)" ops::cuda::tests
  sanitize initcheck "$(program lm)" ops::cuda::tests
else
  echo "== compute-sanitizer: skipped, it is not in PATH"
fi

echo "== speed"
for shape in 0.5b 1.5b; do
  # shellcheck disable=SC2086
  cargo bench --features cuda -- training-bf16 training-shared-bf16 judge-bf16 sample --shape "$shape" --device "$device" $peer --keep
done
