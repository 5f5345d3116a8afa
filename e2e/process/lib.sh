# Sourced by every script that starts processes for tests: e2e/cluster, e2e/postgres, e2e/s3. README.md says what a run
# is, and what is guaranteed when something is killed.
# shellcheck shell=bash
#
# The sourcing script sets
#   kind            what it starts; the prefix of its messages
#   registry        the directory of its runs
# and may define
#   after_end RUN   removes what outlives the processes of a run

process_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf '%s: %s\n' "${kind:-process}" "$*" >&2; }
die() { say "$*"; exit 1; }
# Exit code 77: this machine cannot run it. The caller counts it as skipped, never as passed.
missing() { say "SKIPPED, this machine lacks: $*"; exit 77; }

# until_ok SECONDS COMMAND...: repeats the command until it succeeds; fails when the time is over.
until_ok() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    (( SECONDS < end )) || return 1
    sleep 0.1
  done
}

# A port of the loopback address that nothing listens on: below the range of outgoing connections, above the ports of
# clusters. Another process can take it before it is used: the part then exits, and its next start picks another port.
free_port() {
  local port
  while :; do
    port=$((22000 + RANDOM % 10000))
    port_open "$port" || break
  done
  printf '%s\n' "$port"
}
port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The start time of a process in ticks since boot. Process ids are reused: only both together identify a process.
start_time() {
  local stat
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  read -ra stat <<<"${stat##*) }"
  [[ ${stat[0]} != [ZX] ]] && printf '%s\n' "${stat[19]}"
}

# alive FILE: whether the process recorded in FILE as "PID START" still runs.
alive() {
  local pid started
  read -r pid started 2>/dev/null <"$1" || return 1
  [[ -n ${started:-} && $(start_time "$pid") == "$started" ]]
}
not_alive() { ! alive "$1"; }
record_self() { printf '%s %s\n' "$$" "$(start_time "$$")" >"$1.new" && mv "$1.new" "$1"; }

run_dir() { printf '%s/%s\n' "$registry" "$1"; }
lives() { alive "$1/supervisor.pid"; }

# The processes of a run, of whatever parent: they carry its directory in their environment.
processes_of() {
  # Processes come and go meanwhile, and the environment of other users' processes is not readable: no error of grep matters.
  grep -slzxF "PGRAIL_PART_OF=$1" /proc/[0-9]*/environ | cut -d / -f 3 || true
}
nothing_runs() { [[ -z $(processes_of "$1") ]]; }

# Held while runs are claimed and swept; released as soon as the claim is visible to others.
lock_registry() {
  mkdir -p "$registry"
  exec 9>"$registry/.lock"
  flock 9
}
unlock_registry() { exec 9>&-; }

# claim RUN: removes what killed runs left. Succeeds with the registry locked when no run has that directory: the caller
# then calls `launch` and `unlock_registry`. Fails, without the lock, when such a run lives.
claim() {
  lock_registry
  sweep
  [[ -d $1 ]] || return 0
  unlock_registry
  return 1
}

# launch RUN PARTS OWNER [NAME=VALUE...]: makes the run with these settings and starts its supervisor, which sources the
# script PARTS to start the parts. When the process OWNER ends, the run ends; without one it lives until `end_run`.
launch() {
  local run=$1 parts=$2 owner=$3; shift 3
  mkdir -p "$run/log" "$run/pid"
  # shellcheck disable=SC2154 # set by the sourcing script
  printf '%s\n' "kind=${kind@Q}" "registry=${registry@Q}" "parts=${parts@Q}" "owner=${owner@Q}" "$@" >"$run/settings"
  setsid "$process_dir/supervise.sh" "$run" >>"$run/log/supervisor.log" 2>&1 </dev/null 8>&- 9>&- &
  until_ok 30 test -s "$run/supervisor.pid" || die "the supervisor does not start: $(cat "$run/log/supervisor.log")"
}

# keep NAME COMMAND...: for the script PARTS: starts a part and keeps it running (keep.sh).
keep() { setpriv --pdeathsig KILL "$process_dir/keep.sh" "$run" "$@" & }

# came_up RUN SECONDS COMMAND...: waits until the command succeeds. 0: it did; 1: the run failed; 2: the time is over.
came_up() {
  local run=$1 end=$((SECONDS + $2)); shift 2
  until "$@" >/dev/null 2>&1; do
    compgen -G "$run/failed-*" >/dev/null && return 1
    lives "$run" || return 1
    (( SECONDS < end )) || return 2
    sleep 0.1
  done
}

# end_run RUN: ends a run, or removes what a killed one left.
end_run() {
  local run=$1 pid
  if lives "$run"; then
    read -r pid _ <"$run/supervisor.pid"
    kill -TERM "$pid" 2>/dev/null || true
    until_ok 10 not_alive "$run/supervisor.pid" || kill -KILL "$pid" 2>/dev/null || true
  fi
  if ! until_ok 10 nothing_runs "$run"; then
    processes_of "$run" | xargs -r kill -KILL 2>/dev/null || true
    until_ok 10 nothing_runs "$run" || die "processes of $run do not end: $(processes_of "$run" | xargs)"
  fi
  if declare -F after_end >/dev/null; then after_end "$run"; fi
  # Not into a mount: a volume can hold data of another owner.
  rm -rf --one-file-system "$run"
}

# Removes what killed runs left, with the registry locked. A run that lives is not touched.
sweep() {
  local run
  for run in "$registry"/*/; do
    run=${run%/}
    [[ -d $run ]] || continue
    lives "$run" && continue
    say "removing what the killed run ${run##*/} left"
    end_run "$run"
  done
}

# The ends of a run's logs: of the parts that failed, or else of all.
tail_logs() {
  local log logs=("$1"/log/*.log)
  compgen -G "$1/failed-*" >/dev/null && logs=("$1"/failed-*)
  for log in "${logs[@]}"; do
    [[ $log == "$1"/failed-* ]] && log=$1/log/${log##*/failed-}.log
    [[ -s $log ]] || continue
    printf -- '--- the end of %s\n' "$log" >&2
    tail -n 12 "$log" | cut -c 1-400 >&2
  done
}

# kill_part RUN NAME: SIGKILL to a part. Its recorded pid can be one of a pid namespace: the last of NSpid.
kill_part() {
  local pid inner
  inner=$(cat "$1/pid/$2")
  for pid in $(processes_of "$1"); do
    if [[ $(awk '$1 == "NSpid:" { print $NF }' "/proc/$pid/status" 2>/dev/null) == "$inner" ]]; then
      kill -KILL "$pid"
      until_ok 10 ended "$pid" || die "$2 does not end"
      return
    fi
  done
}
ended() { ! start_time "$1"; }
