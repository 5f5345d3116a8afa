#!/usr/bin/env bash
# Copies what the chart carries from where it is made, and renders the kustomize base from the chart:
#   crds/yaml, deploy/alerts, deploy/dashboards -> charts/pgrail/files -> deploy/kustomize/base
#
#   charts/sync.sh           writes
#   charts/sync.sh --check   writes nothing; exit code 1 and a list when anything differs
#
# Needs helm for the last step: from PATH, HELM, or built by e2e/cluster/tools.sh.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
shopt -s nullglob

case ${1:-} in
  "") check= ;;
  --check) check=yes ;;
  *) echo "usage: charts/sync.sh [--check]" >&2; exit 2 ;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
different=0

# same MADE CHECKED_IN: puts the first where the second is, or says that they differ.
same() {
  if cmp -s "$1" "$2"; then return; fi
  if [[ -n $check ]]; then
    echo "$2 is not what it is made from: run charts/sync.sh" >&2
    different=1
  else
    mkdir -p "$(dirname "$2")"
    cp "$1" "$2"
    echo "wrote $2" >&2
  fi
}

# The files of a folder that are not made from anything any more.
strays() {
  local file
  for file in "$2"/*; do
    [[ -e $file && ${file##*/} != kustomization.yaml && ! -e $1/${file##*/} ]] || continue
    if [[ -n $check ]]; then
      echo "$file is made from nothing: run charts/sync.sh" >&2
      different=1
    else
      rm "$file"
      echo "removed $file" >&2
    fi
  done
}

folder() {
  local file
  for file in "$1"/*; do same "$file" "$2/${file##*/}"; done
  strays "$1" "$2"
}

folder crds/yaml charts/pgrail/files/crds
folder deploy/alerts charts/pgrail/files/alerts
folder deploy/dashboards charts/pgrail/files/dashboards

# The kustomization beside the CRDs names each of them.
{
  sed '/^resources:/q' charts/pgrail/files/crds/kustomization.yaml
  for file in crds/yaml/*.yaml; do echo "  - ${file##*/}"; done
} >"$scratch/kustomization.yaml"
same "$scratch/kustomization.yaml" charts/pgrail/files/crds/kustomization.yaml

# The base is the chart with its default values, less what speaks of Helm. CRDs come from the folder above.
helm=${HELM:-$(command -v helm || printf '%s/helm' "$(e2e/cluster/tools.sh helm)")}
{
  echo "# Rendered from charts/pgrail by charts/sync.sh: change the chart, not this file."
  "$helm" template pgrail charts/pgrail --namespace pgrail-system --set crds.install=false |
    sed -e '/^# Source: /d' -e '/^ *helm\.sh\/chart: /d' -e 's|\(app.kubernetes.io/managed-by: \)Helm|\1kustomize|'
} >"$scratch/pgrail.yaml"
same "$scratch/pgrail.yaml" deploy/kustomize/base/pgrail.yaml

exit "$different"
