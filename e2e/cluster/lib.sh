# Sourced by every script of this directory: where things are, how a cluster is named.
# shellcheck shell=bash

cluster_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${PGRAIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pgrail}
kind=cluster
registry=${PGRAIL_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/pgrail}/clusters
# shellcheck source=../process/lib.sh
source "$cluster_dir/../process/lib.sh"
# required MODULE DIRECTORY: the version that go.mod of the directory requires.
required() { awk -v module="$1" '{ for (i = 1; i < NF; i++) if ($i == module && $(i + 1) ~ /^v/) { print $(i + 1); exit } }' "$2/go.mod"; }
default_kubernetes=$(required k8s.io/kubernetes "$cluster_dir/kube")
kubernetes_version=${PGRAIL_KUBERNETES:-$default_kubernetes}
versitygw_version=$(required github.com/versity/versitygw "$cluster_dir/../s3/gateway")
# shellcheck disable=SC2034 # of tools.sh and of e2e/cloudnative-pg
cloudnative_pg_version=$(required github.com/cloudnative-pg/cloudnative-pg "$cluster_dir/../cloudnative-pg")

# Every cluster has a slot: it gives the loopback ports of a control plane, or the 10.x.0.0/16 of a node.
first_slot=0
last_slot=39

valid_name() { [[ $1 =~ ^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$ ]] || die "a cluster's name is at most 20 of a-z, 0-9 and -: not '$1'"; }

cgroup_of() { printf 'pgrail%s-%s\n' "$(sed -n 's/^slot=//p' "$1/settings" 2>/dev/null)" "${1##*/}"; }

remove_cgroups() {
  local top
  for top in /sys/fs/cgroup/"$1" /sys/fs/cgroup/*/"$1"; do
    [[ -d $top ]] && find "$top" -depth -type d -exec rmdir {} + 2>/dev/null
  done
  ! compgen -G "/sys/fs/cgroup/*/$1" >/dev/null && [[ ! -e /sys/fs/cgroup/$1 ]]
}

# Mounts, links and the processes of pods end with the namespaces of the supervisor; cgroups do not.
after_end() { # RUN
  until_ok 10 remove_cgroups "$(cgroup_of "$1")" || say "the cgroups of $1 could not be removed"
}

# install_packages PACKAGE...: with apt-get, as root. What cannot be installed is reported as missing.
install_packages() {
  local log
  (( $# )) || return 0
  command -v apt-get >/dev/null || missing "$* (and no apt-get to install them)"
  [[ $(id -u) == 0 ]] || missing "$* (install them as root: apt-get install $*)"
  say "installing $*"
  log=$(mktemp)
  { apt_get update && apt_get install -y --no-install-recommends "$@"; } >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; rm "$log"; missing "$* (apt-get could not install them)"; }
  rm "$log"
}
apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 "$@"; }

# npm_directory NAME FOLDER: where the packages of the folder's package-lock.json are kept.
npm_directory() { printf '%s/tools/%s-%s\n' "$cache" "$1" "$(cat "$2/package.json" "$2/package-lock.json" | sha256sum | cut -c 1-12)"; }
# npm_packages NAME FOLDER: installs them there once, and prints the directory. A second call at the same time waits for the first.
npm_packages() {
  local directory
  directory=$(npm_directory "$1" "$2")
  mkdir -p "$cache/tools"
  exec 8>"$directory.lock"
  flock 8
  if [[ ! -d $directory ]]; then
    say "installing the packages of ${2#"$PWD/"}/package-lock.json"
    rm -rf "$directory.new"; mkdir "$directory.new"
    cp "$2"/{package.json,package-lock.json,.npmrc} "$directory.new/"
    (cd "$directory.new" && npm ci --ignore-scripts) >"$directory.log" 2>&1 8>&- ||
      { tail -n 20 "$directory.log" >&2; missing "the packages of ${2#"$PWD/"}/package-lock.json (npm could not install them)"; }
    mv "$directory.new" "$directory"
  fi
  exec 8>&-
  printf '%s\n' "$directory"
}

# Prints what is left of a cluster that has ended. Its link is that of link_of, while it ran.
nothing_left_of() { # NAME LINK
  local found=0 try
  [[ ! -e $(run_dir "$1") ]] || { echo "the directory $(run_dir "$1")"; found=1; }
  nothing_runs "$(run_dir "$1")" || { echo "processes $(processes_of "$(run_dir "$1")" | xargs)"; found=1; }
  ! grep -F "$(run_dir "$1")" /proc/self/mounts || { echo "mounts"; found=1; }
  # The kernel removes the links of a network namespace some time after it.
  for (( try = 0; try < 50; try++ )); do ip link show "$2" >/dev/null 2>&1 || break; sleep 0.2; done
  ! ip link show "$2" 2>/dev/null || { echo "the link $2"; found=1; }
  ! ip route | grep "$2" || { echo "a route"; found=1; }
  ! compgen -G "/sys/fs/cgroup/*/pgrail*-$1" || { echo "cgroups"; found=1; }
  ! grep -lzF "$(run_dir "$1")" /proc/[0-9]*/cmdline 2>/dev/null || { echo "processes by command line"; found=1; }
  return $found
}
link_of() { printf 'pgrail%s' "$(sed -n 's/^slot=//p' "$(run_dir "$1")/settings")"; }
