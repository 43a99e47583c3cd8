#!/usr/bin/env bash
# A SLURM cluster of one node on this machine, on loopback, for the tests in this folder. For root on Debian or Ubuntu.
#   tests/slurm/cluster.sh start    install slurmctld, slurmd and munge if needed, start them, wait for the node
#   tests/slurm/cluster.sh stop     stop what `start` started
# Where a cluster answers already, `start` leaves everything as it is. There is no accounting: sacct does not work.
set -euo pipefail
run=/run/robustlab-slurm
state=/var/lib/robustlab-slurm

answers() { sinfo --noheader --format %t 2>/dev/null | grep -qE '^(idle|mix|alloc|comp)'; }

stop() {
  for daemon in slurmd slurmctld munged; do
    if [ -f $run/$daemon.pid ]; then kill "$(cat $run/$daemon.pid)" 2>/dev/null || true; rm -f $run/$daemon.pid; fi
  done
}

install_packages() {
  command -v slurmctld slurmd munged sbatch >/dev/null && return
  command -v apt-get >/dev/null || { echo "cluster.sh: no SLURM here, and no apt-get to install it with" >&2; exit 1; }
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    slurmctld slurmd slurm-client munge >/dev/null
}

# A node is requeued as soon as its credentials expire: 5 s instead of two minutes.
# PARTITION low is preempted by PARTITION high, with 10 s to save.
write_configuration() {
  local host; host=$(hostname -s)
  cat >/etc/slurm/slurm.conf <<CONF
ClusterName=robustlab
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/munge
AuthInfo=cred_expire=5
SlurmUser=slurm
StateSaveLocation=$state/slurmctld
SlurmdSpoolDir=$state/slurmd
SlurmctldPidFile=$run/slurmctld.pid
SlurmdPidFile=$run/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,batch_sched_delay=1,sched_min_interval=100000
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobRequeue=1
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=10
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
CONF
}

start() {
  if answers; then echo "slurm: a cluster answers already"; return; fi
  [ "$(id -u)" = 0 ] || { echo "cluster.sh: only root can start a cluster" >&2; exit 1; }
  install_packages
  mkdir -p $run $state/slurmctld $state/slurmd /etc/slurm /run/munge
  [ -s /etc/munge/munge.key ] || head -c 1024 /dev/urandom >/etc/munge/munge.key
  chown -R munge:munge /etc/munge /run/munge $run
  chmod 400 /etc/munge/munge.key
  chown slurm:slurm $state $state/slurmctld
  write_configuration
  pgrep -x munged >/dev/null || runuser -u munge -- munged --force --pid-file=$run/munged.pid
  slurmctld
  sleep 1
  slurmd
  for _ in $(seq 30); do
    if answers; then echo "slurm: up, $(sinfo --noheader --format '%P %c cpus %t' | tr '\n' ';')"; return; fi
    sleep 1
  done
  echo "cluster.sh: the node did not come up; see $state/slurmctld.log and $state/slurmd.log" >&2
  exit 1
}

case "${1:-start}" in
  start) start ;;
  stop) stop ;;
  *) echo "cluster.sh start|stop" >&2; exit 2 ;;
esac
