#!/usr/bin/env bash
# down.sh [--name NAME | --all]: ends a cluster with everything it made, and removes what killed runs left.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
name=default all=
while (( $# )); do
  case $1 in
    --name) name=$2; shift ;;
    --all) all=yes ;;
    *) die "unknown argument $1; usage: down.sh [--name NAME | --all]" ;;
  esac
  shift
done
if [[ -n ${PGRAIL_KUBECONFIG:-} ]]; then
  say "PGRAIL_KUBECONFIG is set: that cluster is not ended"
  exit 0
fi
valid_name "$name"
lock_registry
sweep
for dir in "$registry"/*/; do
  dir=${dir%/}
  [[ -d $dir && ( -n $all || ${dir##*/} == "$name" ) ]] || continue
  end_run "$dir"
  say "${dir##*/} has ended"
done
