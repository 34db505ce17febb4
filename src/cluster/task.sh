attempt=${SLURM_RESTART_COUNT:-0}
if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then me=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; else me=$SLURM_JOB_ID; fi
say() { echo "# $(date -u +%FT%TZ) $what, attempt $attempt, node ${SLURMD_NODENAME:-?}: $1"; }
run() {
  if [ -n "$stopped" ]; then code=75; return; fi
  "$@" & child=$!
  while kill -0 "$child" 2>/dev/null; do wait "$child"; done
  wait "$child"; code=$?; child=
}
end() {
  say "exit $code${stopped:+ after $stopped}"
  case $code in 0|FINAL) exit "$code";; esac
  if [ "$attempt" -lt "$requeues" ]; then
    say "back into the queue"
    # Slurm ends this script; after a preemption it has put the task back itself.
    scontrol requeue "$me" && sleep 60
  fi
  exit "$code"
}
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export RAYON_NUM_THREADS=$SLURM_CPUS_PER_TASK; fi
say begins
