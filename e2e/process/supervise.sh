#!/usr/bin/env bash
# supervise.sh RUN: the one process that stands for a run. Every part is its descendant and gets a signal from the kernel
# when its parent ends, so that not even SIGKILL leaves one running.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
run=$1
# shellcheck source=/dev/null
source "$run/settings"
record_self "$run/supervisor.pid"
export PGRAIL_PART_OF=$run
trap 'exit 0' TERM INT
trap '' HUP
# shellcheck source=/dev/null
source "$parts"

if [[ -n $owner ]]; then
  # Not `tail --pid`: to it a zombie is alive.
  owner_started=$(start_time "$owner") || owner_started=ended
  while [[ $(start_time "$owner") == "$owner_started" ]]; do sleep 0.5; done
  say "the owner $owner of ${run##*/} ended: ending the run"
  setsid env --unset PGRAIL_PART_OF "$process_dir/end.sh" "$run" >/dev/null 2>&1 &
fi
# A signal ends this wait; the trap then ends the supervisor, and with it every part.
wait
