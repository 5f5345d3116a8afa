#!/usr/bin/env bash
# component.sh [--name CLUSTER] kill|stop|start PART: what tests of faults do to one part of a running cluster (etcd,
# apiserver, controller-manager; of a node also scheduler, containerd, kubelet, proxy, coredns, volumes).
#   kill   SIGKILL; it is started again     stop   SIGKILL; it is not started again until     start
set -euo pipefail
source "$(dirname "$0")/lib.sh"
name=default
[[ ${1:-} == --name ]] && { name=$2; shift 2; }
action=$1 part=$2
run=$(run_dir "$name")
lives "$run" || die "no cluster named $name runs"
[[ -e $run/pid/$part ]] || die "$name has no part $part; it has: $(cd "$run/pid" && echo *)"

case $action in
  kill) kill_part "$run" "$part" ;;
  stop) mkdir -p "$run/hold"; touch "$run/hold/$part"; kill_part "$run" "$part" ;;
  start) rm -f "$run/hold/$part" ;;
  *) die "unknown action $action; usage: component.sh [--name CLUSTER] kill|stop|start PART" ;;
esac
