#!/usr/bin/env bash
# Copies what the chart contains from its source, and renders the kustomize base from the chart:
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

# same SOURCE COPY: copies the file, or with --check reports that the two differ.
same() {
  if cmp -s "$1" "$2"; then return; fi
  if [[ -n $check ]]; then
    echo "$2 differs from its source: run charts/sync.sh" >&2
    different=1
  else
    mkdir -p "$(dirname "$2")"
    cp "$1" "$2"
    echo "wrote $2" >&2
  fi
}

# orphans SOURCE COPY: removes the files of a directory that have no source any more, or with --check reports them.
orphans() {
  local file
  for file in "$2"/*; do
    [[ -e $file && ${file##*/} != kustomization.yaml && ! -e $1/${file##*/} ]] || continue
    if [[ -n $check ]]; then
      echo "$file has no source: run charts/sync.sh" >&2
      different=1
    else
      rm "$file"
      echo "removed $file" >&2
    fi
  done
}

directory() {
  local file
  for file in "$1"/*; do same "$file" "$2/${file##*/}"; done
  orphans "$1" "$2"
}

directory crds/yaml charts/pgrail/files/crds
directory deploy/alerts charts/pgrail/files/alerts
directory deploy/dashboards charts/pgrail/files/dashboards

# The kustomization beside the CRDs names each of them.
{
  sed '/^resources:/q' charts/pgrail/files/crds/kustomization.yaml
  for file in crds/yaml/*.yaml; do echo "  - ${file##*/}"; done
} >"$scratch/kustomization.yaml"
same "$scratch/kustomization.yaml" charts/pgrail/files/crds/kustomization.yaml

# The base is the chart with its default values, without what names Helm, and without empty lines, in which versions of
# Helm differ. The CRDs are those of the directory above.
helm=${HELM:-$(command -v helm || printf '%s/helm' "$(e2e/cluster/tools.sh helm)")}
{
  echo "# Rendered from charts/pgrail by charts/sync.sh: change the chart, not this file."
  "$helm" template pgrail charts/pgrail --namespace pgrail-system --set crds.install=false |
    sed -e '/^# Source: /d' -e '/^$/d' -e '/^ *helm\.sh\/chart: /d' -e 's|\(app.kubernetes.io/managed-by: \)Helm|\1kustomize|'
} >"$scratch/pgrail.yaml"
same "$scratch/pgrail.yaml" deploy/kustomize/base/pgrail.yaml

exit "$different"
