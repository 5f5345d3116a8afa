# Sourced by every script of this folder: where things are, how a run is named, found and ended.
# shellcheck shell=bash

cluster_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${PGRAIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pgrail}
registry=${PGRAIL_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/pgrail}/clusters
kubernetes_version=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' "$cluster_dir/kube/go.mod")
# shellcheck source=versions.env
source "$cluster_dir/versions.env"

# Node slots. Each run has one: it gives the loopback port of a control plane, or the 10.x.0.0/16 of a node.
first_slot=0
last_slot=39

say() { printf 'cluster: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
# For what this machine cannot do: the caller counts 77 as a skip, never as a pass.
missing() { printf 'cluster: SKIPPED, this machine lacks: %s\n' "$*" >&2; exit 77; }

# until_ok SECONDS COMMAND...: polls until the command succeeds; fails when the time is over.
until_ok() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    (( SECONDS < end )) || return 1
    sleep 0.1
  done
}

# The start time of a process in ticks since boot: a pid names a process only together with it.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  read -ra stat <<<"${stat##*) }"
  [[ ${stat[0]} != Z ]] && printf '%s\n' "${stat[19]}"
}

# alive FILE: whether the process recorded in FILE as "PID START" is that very process, still running.
alive() {
  local pid started
  read -r pid started 2>/dev/null <"$1" || return 1
  [[ -n ${started:-} && $(start_time "$pid") == "$started" ]]
}

record_self() { printf '%s %s\n' "$$" "$(start_time "$$")" >"$1.new" && mv "$1.new" "$1"; }

run_dir() { printf '%s/%s\n' "$registry" "$1"; }

valid_name() { [[ $1 =~ ^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$ ]] || die "a cluster's name is at most 20 of a-z, 0-9 and -: not '$1'"; }

# The processes that carry this run in their environment, of whatever parent.
processes_of() {
  # Processes come and go meanwhile, and others' environments are not ours to read: grep's complaints mean nothing.
  grep -slzxF "PGRAIL_CLUSTER_RUN=$1" /proc/[0-9]*/environ | cut -d / -f 3 || true
}

nothing_runs() { [[ -z $(processes_of "$1") ]]; }

cgroup_of() { printf 'pgrail%s-%s\n' "$(sed -n 's/^slot=//p' "$1/settings" 2>/dev/null)" "${1##*/}"; }

remove_cgroups() {
  local top
  for top in /sys/fs/cgroup/"$1" /sys/fs/cgroup/*/"$1"; do
    [[ -d $top ]] && find "$top" -depth -type d -exec rmdir {} + 2>/dev/null
  done
  ! compgen -G "/sys/fs/cgroup/*/$1" >/dev/null && [[ ! -e /sys/fs/cgroup/$1 ]]
}

# end_run DIR: ends a run, or clears away what a killed one left. Mounts, links and the pods' processes go with
# the namespaces of the supervisor; only cgroups and the folder itself outlive them.
end_run() {
  local dir=$1 pid
  if alive "$dir/supervisor.pid"; then
    read -r pid _ <"$dir/supervisor.pid"
    kill -TERM "$pid" 2>/dev/null || true
    until_ok 10 not_alive "$dir/supervisor.pid" || kill -KILL "$pid" 2>/dev/null || true
  fi
  if ! until_ok 5 nothing_runs "$dir"; then
    processes_of "$dir" | xargs -r kill -KILL 2>/dev/null || true
    until_ok 10 nothing_runs "$dir" || die "processes of $dir do not end: $(processes_of "$dir" | xargs)"
  fi
  until_ok 10 remove_cgroups "$(cgroup_of "$dir")" || say "cgroups of $dir could not be removed"
  # Never into a mount: a volume may hold somebody's data.
  rm -rf --one-file-system "$dir"
}
not_alive() { ! alive "$1"; }

# Ends what a killed run left. A run that lives is never touched.
sweep() {
  local dir
  for dir in "$registry"/*/; do
    dir=${dir%/}
    [[ -d $dir ]] || continue
    alive "$dir/supervisor.pid" && continue
    say "clearing away what the dead run ${dir##*/} left"
    end_run "$dir"
  done
}

# Held while runs are claimed and swept; let go as soon as the claim is visible to others.
lock_registry() {
  mkdir -p "$registry"
  exec 9>"$registry/.lock"
  flock 9
}
unlock_registry() { exec 9>&-; }

# The ends of a run's logs: of the parts that were given up, or else of all.
tail_logs() {
  local log logs=("$1"/log/*.log)
  compgen -G "$1/failed-*" >/dev/null && logs=("$1"/failed-*)
  for log in "${logs[@]}"; do
    log=$1/log/${log##*/}
    [[ $log == */failed-* ]] && log=$1/log/${log##*/failed-}.log
    [[ -s $log ]] || continue
    printf -- '--- the end of %s\n' "$log" >&2
    tail -n 12 "$log" | cut -c 1-400 >&2
  done
}
