#!/usr/bin/env bash
# What a GPU has to show, from programs that tests/gpu-build.sh built elsewhere: the numbers of the CPU, the same bytes at
# each run, no errors of memory and no races, and how fast it is beside torch. Needs a driver, CUDA 13's libraries, and
# Python with torch and transformers; neither cargo nor a network. Under six minutes; the most valuable part first.
#
#     tests/gpu-carried.sh [FOLDER [OUT [PART...]]]      .gpu and .gpu/out unless given, and all parts
#
# OUT gets `gpu.log`, all that was printed, and `figures.jsonl`. A line for each part says its exit code and seconds.
# Where the device does not open it says why and ends, with exit code 3: all other parts would fail alike.
set -u
cd "$(dirname "$0")/.."
folder=$(realpath "${1:-.gpu}") out=${2:-$folder/out}
shift $(($# < 2 ? $# : 2))
parts=${*:-card opens kernels log_probabilities training generation graphs bytes bench_kernels bench_training \
bench_prefill peer bench_decode bench_launches main_job memcheck racecheck synccheck initcheck}
mkdir -p "$out"
out=$(realpath "$out")
log=$out/gpu.log figures=$out/figures.jsonl device=cuda:0
: > "$log"; : > "$figures"

# Each program once, where there is room. Tests look for their fixtures in this copy of the repository.
work=$(mktemp -d)
xz -dc "$folder/programs.tar.xz" | tar x -C "$work" || exit 1
root=$PWD
export HALFTONE_TEST_ROOT=$root
wheels=$(python3 -c 'import os, nvidia.cu13 as m; print(os.path.join(list(m.__path__)[0], "lib"))' 2>> "$log")
export LD_LIBRARY_PATH=$wheels:/usr/local/nvidia/lib64:/usr/local/cuda/lib64:${LD_LIBRARY_PATH:-}
export HALFTONE_TEST_DEVICE=$device RUST_TEST_THREADS=1 RUST_BACKTRACE=1 PYTHONUNBUFFERED=1

# part SECONDS COMMAND...: its output goes into the log; the name is that of the calling function.
part() {
  local limit=$1 began=$SECONDS
  shift
  printf '\n== %s\n' "$*" >> "$log"
  timeout "$limit" "$@" >> "$log" 2>&1
  local code=$?
  printf '%-18s rc %-3s %3s s\n' "${FUNCNAME[1]}" "$code" $((SECONDS - began)) | tee -a "$log"
  return $code
}
# What a program says when it opens the device, which is its first call of CUDA.
opens() {
  part 30 "$work/gpu_bench" $device "$root" kernels && return
  echo; echo "$device does not open, so nothing else is run:"
  grep -a 'Error: ' "$log" | tail -n 1
  rm -rf "$work"
  exit 3
}
card() {
  part 30 sh -c "nvidia-smi; nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm --format=csv
    python3 -c 'import torch; print(torch.__version__, torch.cuda.is_available())'
    '$work/lm-tests' --nocapture a_missing_gpu"
}
kernels() { HALFTONE_CUDA_SYNC=1 part 60 "$work/lm-tests" ops:: nf4 steps_of_few_bits; }
log_probabilities() { part 60 "$work/device" log_probabilities few_bits --nocapture; }
training() { part 90 "$work/device" training --nocapture; }
generation() { part 60 "$work/device" generation --nocapture; }
# Steps of decoding as CUDA graphs, and kernel by kernel.
graphs() {
  part 60 bash -o pipefail -c "for on in 0 1; do HALFTONE_CUDA_GRAPHS=\$on '$work/device' generation --nocapture \
    | grep digest > '$work/graphs'\$on || exit 1; done; diff '$work/graphs0' '$work/graphs1' && cat '$work/graphs1' \
    && echo graphs give the bytes of single kernels"
}
bytes() {
  part 60 bash -o pipefail -c "'$work/device' same_bytes --nocapture | tee '$work/first' && '$work/device' same_bytes --nocapture \
    > '$work/second' && grep digest '$work/first' > '$work/a' && grep digest '$work/second' | diff - '$work/a' \
    && echo two processes gave the same bytes"
}
bench() { set -o pipefail; "$work/gpu_bench" $device "$root/tests/fixtures/oracles/qwen2" "$@" | tee -a "$figures"; }
export -f bench; export work device root figures
bench_kernels() { part 60 bash -c "bench kernels 0.5b && bench kernels 1.5b"; }
bench_training() { part 60 bash -c "bench training 0.5b 1.5b"; }
bench_prefill() { part 60 bash -c "bench prefill 0.5b 1.5b 7b"; }
bench_decode() { part 60 bash -c "bench decode 0.5b 1.5b"; }
bench_launches() { HALFTONE_CUDA_GRAPHS=0 part 40 bash -c "bench decode 0.5b"; }
peer() { part 90 bash -o pipefail -c "python3 tests/bench/peers/torch_gpu.py 0.5b 1.5b | tee -a '$figures'"; }
main_job() {
  part 120 sh -c "'$work/halftone' --work '$work/store' run pipelines/quickstart.yaml --device $device \
    && '$work/halftone' --work '$work/store' inspect evaluation.summary"
}
sanitize() {
  command -v compute-sanitizer || { echo "there is no compute-sanitizer here"; return 127; }
  compute-sanitizer --error-exitcode 1 "$@"
}
export -f sanitize
memcheck() { part 90 bash -c "HALFTONE_TEST_MODEL=qwen2 sanitize --tool memcheck '$work/device' training --nocapture"; }
racecheck() { part 60 bash -c "sanitize --tool racecheck '$work/lm-tests' ops::cuda::tests::attention"; }
synccheck() { part 60 bash -c "sanitize --tool synccheck '$work/lm-tests' ops::cuda::tests"; }
initcheck() { part 60 bash -c "sanitize --tool initcheck '$work/lm-tests' ops::cuda::tests"; }

for name in $parts; do "$name"; done
rm -rf "$work"
echo; grep -E '"name"' "$figures"
grep -E 'panicked|FAILED|test result|ERROR SUMMARY|off by' "$log" | sort | uniq -c | sort -rn | head -40
