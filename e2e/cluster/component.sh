#!/usr/bin/env bash
# component.sh [--name CLUSTER] kill|stop|start PART: what tests of faults do to one part of a running cluster (etcd,
# apiserver, controller-manager; of a node also scheduler, containerd, kubelet, proxy, coredns, volumes).
#   kill   SIGKILL; it is started again at once     stop   SIGKILL, and stays down until     start
set -euo pipefail
source "$(dirname "$0")/lib.sh"
name=default
[[ ${1:-} == --name ]] && { name=$2; shift 2; }
action=$1 part=$2
run=$(run_dir "$name")
alive "$run/supervisor.pid" || die "no cluster named $name runs"
[[ -e $run/pid/$part ]] || die "$name has no part $part; it has: $(cd "$run/pid" && echo *)"

# The pid recorded is the one inside the node's pid namespace: the last of NSpid.
kill_part() {
  local pid inner
  inner=$(cat "$run/pid/$part")
  for pid in $(processes_of "$run"); do
    if [[ $(awk '$1 == "NSpid:" { print $NF }' "/proc/$pid/status" 2>/dev/null) == "$inner" ]]; then
      kill -KILL "$pid"
      until_ok 10 gone "$pid" || die "$part does not die"
      return
    fi
  done
}
gone() { ! start_time "$1"; }

case $action in
  kill) kill_part ;;
  stop) mkdir -p "$run/hold"; touch "$run/hold/$part"; kill_part ;;
  start) rm -f "$run/hold/$part" ;;
  *) die "unknown action $action; usage: component.sh [--name CLUSTER] kill|stop|start PART" ;;
esac
