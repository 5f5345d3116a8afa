#!/usr/bin/env bash
# smoke.sh: tests of the process manager: parts that exit, runs side by side, and what is left after SIGKILL of any
# process. First with parts made for the test, then with the PostgreSQL servers and the S3 server. Its last line counts.
set -euo pipefail
smoke_dir=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
kind=smoke
registry=$work/runs
# shellcheck source=lib.sh
source "$smoke_dir/lib.sh"
# shellcheck source=../check.sh
source "$smoke_dir/../check.sh"
cleanup() {
  local run
  for run in "$registry"/*/; do [[ ! -d $run ]] || end_run "${run%/}"; done
  rm -rf "$work"
}
trap cleanup EXIT

# Parts for the test: one that runs, one with a child, one that exits at once, one that gives up, one that knows its port.
cat >"$work/parts.sh" <<'P'
for part in $wanted; do
  case $part in
    sleeper) keep sleeper sleep 1000 ;;
    parent) keep parent bash -c 'sleep 1000 & wait' ;;
    failing) keep failing bash -c 'echo "the reason why failing exits"; exit 1' ;;
    hopeless) keep hopeless bash -c 'echo once >>"$0"; exit 78' "$run/attempts" ;;
  esac
done
P

start() { # NAME OWNER PART...
  local run; run=$(run_dir "$1")
  claim "$run" || return 1
  launch "$run" "$work/parts.sh" "$2" "wanted='${*:3}'"
  unlock_registry
}
part_runs() { [[ -s $run/pid/$1 ]] && kill -0 "$(cat "$run/pid/$1")"; }
another_pid() { part_runs "$1" && [[ $(cat "$run/pid/$1") != "$2" ]]; }
kill_supervisor() { local pid; read -r pid _ <"$1/supervisor.pid"; kill -KILL "$pid"; }

run=$(run_dir first)
check "a run starts" start first "" sleeper
check "its parts run" until_ok 10 part_runs sleeper
check "they are found by their environment" not nothing_runs "$run"
check "a second run of the same name is refused" not start first ""
check "a second run starts beside it" start second "" sleeper

killed_part_is_started_again() {
  local before; before=$(cat "$run/pid/sleeper")
  kill_part "$run" sleeper
  until_ok 10 another_pid sleeper "$before"
}
check "a part that is killed is started again" killed_part_is_started_again
held_part_stays_down() {
  mkdir -p "$run/hold"; touch "$run/hold/sleeper"
  kill_part "$run" sleeper
  until_ok 10 not part_runs sleeper
  rm "$run/hold/sleeper"
  until_ok 10 part_runs sleeper
}
check "a part on hold is not started until it is released" held_part_stays_down
reused_pid_is_another_process() {
  printf '%s 1\n' "$$" >"$work/reused.pid"
  not_alive "$work/reused.pid"
}
check "a reused process id is another process" reused_pid_is_another_process

sweep_keeps_the_living() { lock_registry; sweep; unlock_registry; lives "$run" && part_runs sleeper; }
check "a sweep does not touch a run that lives" sweep_keeps_the_living
end_first() { end_run "$run"; nothing_runs "$run" && [[ ! -e $run ]]; }
check "a run ends, and nothing is left of it" end_first
run=$(run_dir second)
check "the second run still lives" part_runs sleeper

killed_supervisor_leaves_nothing() { kill_supervisor "$run"; until_ok 10 nothing_runs "$run"; }
check "SIGKILL of the supervisor: no process is left" killed_supervisor_leaves_nothing
check "the name can be used again at once" start second "" parent
killed_keeper_leaves_no_part() {
  local part; until_ok 10 part_runs parent
  part=$(cat "$run/pid/parent")
  kill -KILL "$(awk '{ print $4 }' "/proc/$part/stat")"
  until_ok 10 not kill -0 "$part"
}
check "SIGKILL of keep.sh: its part ends too" killed_keeper_leaves_no_part
everything_killed() {
  start third "" sleeper parent
  run=$(run_dir third)
  until_ok 10 part_runs parent
  kill_supervisor "$run"
  processes_of "$run" | xargs -r kill -KILL 2>/dev/null || true
  until_ok 10 nothing_runs "$run"
  lock_registry; sweep; unlock_registry
  [[ ! -e $run ]]
}
check "SIGKILL of everything: the next sweep removes the directory" everything_killed

run_ends_with_its_owner() {
  sleep 1000 &
  local owner=$!
  start owned "$owner" sleeper parent
  run=$(run_dir owned)
  until_ok 10 part_runs parent
  kill -KILL "$owner"
  until_ok 30 test ! -e "$run"
  nothing_runs "$run"
}
check "SIGKILL of the owner: the run ends, and nothing is left of it" run_ends_with_its_owner

failing_part_fails_the_run() {
  local result=0
  start failing "" sleeper failing
  run=$(run_dir failing)
  came_up "$run" 30 false || result=$?
  (( result == 1 ))
  tail_logs "$run" 2>&1 | grep -F "the reason why failing exits"
}
check "a part that exits five times fails the run, and its log is shown" failing_part_fails_the_run
hopeless_part_is_tried_once() {
  local result=0
  start hopeless "" hopeless
  run=$(run_dir hopeless)
  came_up "$run" 30 false || result=$?
  (( result == 1 )) && [[ $(wc -l <"$run/attempts") == 1 ]]
}
check "a part that exits with 78 is tried once" hopeless_part_is_tried_once
slow_run_times_out() {
  local result=0
  start slow "" sleeper
  came_up "$(run_dir slow)" 1 false || result=$?
  (( result == 2 ))
}
check "a run that does not become ready times out" slow_run_times_out

# The users of the process manager. A subshell each: their libraries have their own kind and registry.
repository=$(cd "$smoke_dir/../.." && pwd)
# killed_with SCRIPT ARGUMENT...: a `with` or `run` that is killed by SIGKILL while its command runs.
killed_with() {
  local pid
  "$@" bash -c "env >'$work/environment'; echo \$\$ >'$work/up'; exec sleep 1000" &
  pid=$!
  until_ok 300 test -s "$work/up"
  kill -KILL "$pid" "$(cat "$work/up")"
  rm "$work/up"
  wait "$pid" || true
}
postgres_leaves_nothing() (
  killed_with env PGRAIL_TEST_MAJORS=18 PGRAIL_TEST_POOLER=no "$repository/e2e/postgres/servers.sh" with
  directory=$(sed -n 's/^PGRAIL_TEST_CA=//p' "$work/environment")
  directory=${directory%/*}
  until_ok 30 test ! -e "$directory"
  # Also of those whose environment PostgreSQL overwrote with their title.
  not pgrep -f -- "$directory/.*postgres"
)
check "PostgreSQL: SIGKILL of \`servers.sh with\` leaves no server and no directory" postgres_leaves_nothing
s3_leaves_nothing() (
  killed_with "$repository/e2e/s3/server.sh" run
  directory=$(sed -n 's/^PGRAIL_TEST_S3=.*state=//p' "$work/environment")
  [[ -n $directory ]]
  until_ok 30 test ! -e "$directory"
  nothing_runs "$directory"
)
check "S3: SIGKILL of \`server.sh run\` leaves no server and no directory" s3_leaves_nothing
postgres_comes_back() (
  export PGRAIL_TEST_MAJORS=18 PGRAIL_TEST_POOLER=no PGRAIL_RUN=smoke-$$
  eval "$("$repository/e2e/postgres/servers.sh" up)"
  trap '"$repository/e2e/postgres/servers.sh" down' EXIT
  run=${PGRAIL_TEST_CA%/*}
  before=$(cat "$run/pid/18")
  kill_part "$run" 18
  until_ok 30 another_pid 18 "$before"
  until_ok 60 "$PGRAIL_TEST_PG_BIN_18/psql" -X "${PGRAIL_TEST_SERVERS#*=}" -c 'select 1'
)
check "PostgreSQL: a server that is killed comes back on its port" postgres_comes_back

count_line
