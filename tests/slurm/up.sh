#!/usr/bin/env bash
# Brings up a real Slurm on the loopback of this machine: munged, slurmctld and two slurmd as nodes n1 and n2; as root,
# without systemd, cgroups, a database or a network. `up.sh FOLDER [PORT]`; `down.sh FOLDER` takes it down.
# After it: export SLURM_CONF=FOLDER/slurm.conf
set -euo pipefail
D=$1 PORT=${2:-16817} NODES=2
CPUS=$(nproc) MEM=$(awk '/MemTotal/ { print int($2 / 1024 / 2) }' /proc/meminfo) HOST=$(hostname -s)
mkdir -p "$D"/{state,log,munge,pid,spool}
chmod 755 "$D"

# A key and a socket of its own, so that nothing of the system's is touched.
dd if=/dev/urandom of="$D/munge/key" bs=1024 count=1 status=none
chmod 400 "$D/munge/key"
chmod 711 "$D/munge"
munged --force --key-file="$D/munge/key" --socket="$D/munge/sock" --pid-file="$D/pid/munged.pid" \
  --log-file="$D/log/munged.log" --seed-file="$D/munge/seed" --num-threads=2

{
  cat << CONF
ClusterName=loop
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
AuthType=auth/munge
# A requeued job starts after its credential has expired: two minutes by default.
AuthInfo=socket=$D/munge/sock,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool/%n
SlurmctldPidFile=$D/pid/slurmctld.pid
SlurmdPidFile=$D/pid/slurmd.%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0,batch_sched_delay=0,requeue_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
MpiDefault=none
ReturnToService=2
MailProg=/bin/true
JobRequeue=1
# Small, so that 16 parts are two arrays.
MaxArraySize=11
KillWait=5
SlurmdTimeout=15
SlurmctldTimeout=30
InactiveLimit=0
Waittime=0
CONF
  for i in $(seq $NODES); do
    echo "NodeName=n$i NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT + i)) CPUs=$CPUS RealMemory=$MEM"
  done
  echo "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10"
  echo "PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF"
} > "$D/slurm.conf"
# No cgroups are wanted. Since 23.11 there is a word for it; before, version 1 touches nothing as configured here.
version=$(slurmd -V | awk '{ print $2 }')
if [ "${version%%.*}" -ge 24 ] || [[ $version == 23.11* ]]; then plugin=disabled; else plugin=cgroup/v1; fi
echo "CgroupPlugin=$plugin" > "$D/cgroup.conf"
export SLURM_CONF=$D/slurm.conf

slurmctld -c
for i in $(seq $NODES); do
  mkdir -p "$D/spool/n$i"
  slurmd -c -N "n$i"
done
for _ in $(seq 100); do
  idle=$(sinfo -h -p main -N -o %T 2> /dev/null | grep -c '^idle$' || true)
  if [ "$idle" -ge $NODES ]; then exit 0; fi
  sleep 0.3
done
echo "only $idle of $NODES nodes are idle; the ends of the logs in $D/log:" >&2
tail -n 5 "$D"/log/*.log >&2
exit 1
