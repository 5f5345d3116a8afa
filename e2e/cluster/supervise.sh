#!/usr/bin/env bash
# supervise.sh RUN: the one process that stands for a run; up.sh starts it, down.sh ends it. Everything else is a
# descendant that dies when its parent does, so that not even a SIGKILL leaves anything running.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
run=$1
record_self "$run/supervisor.pid"
# shellcheck source=/dev/null
source "$run/settings"
export PGRAIL_CLUSTER_RUN=$run
trap 'exit 0' TERM INT
trap '' HUP

if [[ $mode == node ]]; then
  setpriv --pdeathsig KILL unshare --net "$cluster_dir/node-network.sh" "$run" "$$" >>"$run/log/node.log" 2>&1 &
else
  source "$cluster_dir/control-plane.sh"
  start_control_plane
fi

if [[ -n $owner ]]; then
  setpriv --pdeathsig KILL tail --pid="$owner" -f /dev/null &
  wait $! && say "the owner $owner of ${run##*/} is gone: ending" && exit 0
fi
# A signal ends this wait; the trap then ends the run.
wait
