#!/usr/bin/env bash
# keep.sh RUN NAME COMMAND...: keeps one component running, its output in RUN/log/NAME.log, its pid in RUN/pid/NAME.
# A component that dies is started again, so that tests can kill it; one that does not come up is given up.
# While RUN/hold/NAME exists it stays down.
set -uo pipefail
run=$1 name=$2
shift 2
mkdir -p "$run/log" "$run/pid"
early_deaths=0
while true; do
  while [[ -e $run/hold/$name ]]; do sleep 0.1; done
  began=$SECONDS
  setpriv --pdeathsig KILL "$@" >>"$run/log/$name.log" 2>&1 &
  echo $! >"$run/pid/$name"
  wait $!
  code=$?
  printf 'keep: %s ended with code %s\n' "$name" "$code" >>"$run/log/$name.log"
  [[ -e $run/hold/$name ]] && continue
  if (( SECONDS - began < 3 )); then early_deaths=$((early_deaths + 1)); else early_deaths=0; fi
  if (( early_deaths >= 5 )); then touch "$run/failed-$name"; exit 1; fi
  sleep 0.3
done
