#!/usr/bin/env bash
# load.sh [--name CLUSTER] ARCHIVE...: loads image archives (docker save, tiny-image.sh) into a running node.
# Nothing is ever pulled there: pods name these images with a tag other than latest, or imagePullPolicy Never.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
name=default
[[ ${1:-} == --name ]] && { name=$2; shift 2; }
if [[ -n ${PGRAIL_KUBECONFIG:-} ]]; then
  say "PGRAIL_KUBECONFIG is set: loading the image into that cluster is its owner's affair"
  exit 0
fi
run=$(run_dir "$name")
{ lives "$run" && grep -qx mode=node "$run/settings"; } ||
  die "no node named $name runs; start it with up.sh --node --name $name"
for archive in "$@"; do
  ctr --address "$run/containerd.sock" --namespace k8s.io images import "$archive" >/dev/null
done
