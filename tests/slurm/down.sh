#!/usr/bin/env bash
# Takes down what `up.sh FOLDER` brought up, by the process ids that it left there.
set -uo pipefail
D=$1
export SLURM_CONF=$D/slurm.conf
if scontrol ping > /dev/null 2>&1; then
  scancel --user=root --signal=KILL --full > /dev/null 2>&1
  scancel --user=root > /dev/null 2>&1
  sleep 0.5
fi
for file in "$D"/pid/slurmd.*.pid "$D"/pid/slurmctld.pid "$D"/pid/munged.pid; do
  pid=$(cat "$file" 2> /dev/null) || continue
  ours() { case "$(cat "/proc/$pid/comm" 2> /dev/null)" in slurmd* | slurmctld* | munged*) true ;; *) false ;; esac; }
  if ours; then kill -TERM "$pid" 2> /dev/null; fi
  for _ in $(seq 30); do ours && sleep 0.1 || break; done
  if ours; then kill -KILL "$pid" 2> /dev/null; fi
  rm -f "$file"
done
exit 0
