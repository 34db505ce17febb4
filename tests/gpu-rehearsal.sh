#!/usr/bin/env bash
# Runs programs that tests/gpu-build.sh built on a machine without a GPU. A driver and CUDA's libraries stand in there
# and do all work on the processor (stages/lm/tests/emulator/driver.cpp), so that what programs do around their kernels
# is run as it would be on a GPU: devices, memory, copies, products, graphs. Needs c++, xz and Python; three minutes.
#
#     tests/gpu-rehearsal.sh [FOLDER]          .gpu unless given
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath "${1:-.gpu}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
xz -dc "$folder/programs.tar.xz" | tar x -C "$work"
mkdir "$work/libraries"
c++ -std=c++17 -O2 -w -fPIC -shared -U_FORTIFY_SOURCE -o "$work/libraries/libcuda.so" \
  stages/lm/tests/emulator/driver.cpp
for library in cuda.so.1 cublas.so cublasLt.so curand.so; do ln -s libcuda.so "$work/libraries/lib$library"; done
export LD_LIBRARY_PATH=$work/libraries HALFTONE_TEST_ROOT=$PWD

fail() { echo "$*"; exit 1; }

# job NAME DEVICE [KEY=VALUE...]: the quickstart as small as it gets, with every stage that holds a model.
job() {
  local name=$1 device=$2
  shift 2
  local keys=(world.prompts=4 world.holdout_prompts=3 world.demonstrations=16 world.judge_rows=16 world.model.width=16
    world.model.layers=2 world.model.heads=2 imitation.steps=2 imitation.batch.items=4 judge.steps=2 judge.batch.items=4
    samples.k=2 before.k=2 after.k=2 policy.batch.pairs=2 policy.epochs=2 verdicts.least_mass=0
    holdout_verdicts.least_mass=0 'policy.objective={name: rpo, beta: 0.5, tau: 0.5}' "$@")
  # All in one place, which the adapters of a run name.
  "$work/halftone" --work "$work/run" run pipelines/quickstart.yaml --device "$device" "${keys[@]/#/--set=}" \
    > "$work/$name.log" 2>&1 || { cat "$work/$name.log"; fail "$name failed"; }
  mv "$work/run" "$work/$name"
  echo "$name: $(grep -o 'the stand-in for a GPU: .*' "$work/$name.log" || echo done)"
}

# same NAME OTHER: the bytes of all models and tables but those with times.
same() {
  bytes() {
    (cd "$work/$1/runs/quickstart" && find -L . \( -name '*.safetensors' -o -name '*.parquet' \) \
      ! -path '*/metrics/*' ! -path '*/steps/*' -exec sha256sum {} + | sort -k 2)
  }
  diff <(bytes "$1") <(bytes "$2") || fail "$1 and $2 gave other bytes"
  echo "$1: the bytes of $2, in $(bytes "$1" | wc -l) files"
}

# lacking WHAT [WORDS]: where a device lacks something, the run goes on, to the same bytes, and warns where that is slow.
lacking() {
  STAND_IN=$1 job "without-$1" cuda:0
  [ $# = 1 ] || grep -q "warning: $2" "$work/without-$1.log" || fail "without-$1 does not say: $2"
  same "without-$1" gpu
}

# close NAME OTHER: all figures within a thousandth of each other, or of 1.
close() {
  for name in "$@"; do
    "$work/halftone" --work "$work/$name" status quickstart -v > "$work/$name.status" 2> "$work/log"
  done
  python3 - "$work/$1.status" "$work/$2.status" <<'PYTHON' || fail "$1 and $2 gave other figures"
import re, sys

def figures(path):
    lines = [line for line in open(path) if re.match(r"[a-z_]+: |  ", line) and "/runs/" not in line]
    words = re.sub(r"\d+\.\d s\b", "", " ".join(lines)).split()
    return [word.strip("(),") for word in words]

one, other = map(figures, sys.argv[1:])
number = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?$")
both = [(a, b) for a, b in zip(one, other) if number.match(a) and number.match(b)]
far = [(a, b) for a, b in both if abs(float(a) - float(b)) > 1e-3 * max(1, abs(float(a)))]
words = [(a, b) for a, b in zip(one, other) if a != b and (a, b) not in both]
print(f"{len(both)} figures, far from each other: {far + words}")
sys.exit(len(one) != len(other) or bool(far) or bool(words) or len(both) < 50)
PYTHON
}

job cpu cpu
job gpu cuda:0
close cpu gpu
grep -q ' 0 graphs recorded' "$work/gpu.log" && fail "nothing was recorded as a graph"
HALFTONE_CUDA_GRAPHS=0 job single-kernels cuda:0
same single-kernels gpu
lacking graphs 'CUDA graphs do not work here'
lacking recording 'CUDA graphs do not work here'
lacking room
lacking pool 'the driver of this GPU gives memory only after all work is done'
lacking cublaslt 'cublasLt cannot be opened'
# Ranks with replicas on two GPUs.
job two-gpus cuda:0,cuda:1
same two-gpus gpu
# Sentence encoders.
for model in bert encoders/modernbert; do
  job "$(basename "$model")-cpu" cpu "embeddings.model=stages/lm/tests/fixtures/$model"
  job "$(basename "$model")" cuda:0 "embeddings.model=stages/lm/tests/fixtures/$model"
  close "$(basename "$model")-cpu" "$(basename "$model")"
done
# bf16, adapters and weights in few bits.
half=(policy.dtype=bf16 reference.dtype=bf16 before.dtype=bf16 after.dtype=bf16 verdicts.dtype=bf16 before.top_k=5
  after.top_p=0.9 'policy.adapter={rank: 4, alpha: 8, dropout: 0.1, targets: [all-linear]}')
job half cuda:0 "${half[@]}"
HALFTONE_CUDA_GRAPHS=0 job half-single cuda:0 "${half[@]}"
same half-single half
bits=('policy.base={bits: 4}' 'reference.base={bits: 4}' 'samples.base={bits: 4}'
  'policy.adapter={rank: 4, alpha: 8, targets: [all-linear]}')
job bits-cpu cpu "${bits[@]}"
job bits cuda:0 "${bits[@]}"
close bits-cpu bits
# Each operation against the CPU.
HALFTONE_TEST_DEVICE=cuda:0 HALFTONE_CUDA_SYNC=1 RUST_TEST_THREADS=1 "$work/lm-tests" ops:: nf4 steps_of_few_bits \
  > "$work/operations.log" 2>&1 ||
  { grep -A5 -E 'panicked|FAILED' "$work/operations.log"; fail "operations differ"; }
grep -E 'test result|stand-in' "$work/operations.log"
