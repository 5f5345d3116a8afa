#!/usr/bin/env bash
# keep.sh RUN NAME COMMAND...: keeps one part of a run running, its output in RUN/log/NAME.log, its pid in RUN/pid/NAME.
# A part that exits is started again, so that tests can kill it. A part that exits five times within three seconds of its
# start, or once with exit code 78, has failed: RUN/failed-NAME. While RUN/hold/NAME exists it is not started.
set -uo pipefail
run=$1 name=$2
shift 2
early_exits=0
while true; do
  while [[ -e $run/hold/$name ]]; do sleep 0.1; done
  began=$SECONDS
  setpriv --pdeathsig KILL "$@" >>"$run/log/$name.log" 2>&1 &
  echo $! >"$run/pid/$name"
  wait $!
  code=$?
  printf 'keep: %s exited with code %s\n' "$name" "$code" >>"$run/log/$name.log"
  [[ -e $run/hold/$name ]] && continue
  if (( SECONDS - began < 3 )); then early_exits=$((early_exits + 1)); else early_exits=0; fi
  if (( early_exits >= 5 || code == 78 )); then touch "$run/failed-$name"; exit 1; fi
  sleep 0.3
done
