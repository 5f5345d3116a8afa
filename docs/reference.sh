#!/usr/bin/env bash
# Generates the reference pages of the book from the CRDs and the list of conditions.
#   docs/reference.sh           writes docs/src/reference/{kinds/*,conditions}.md
#   docs/reference.sh --check   writes nothing; exit code 1 if anything differs
# Needs python3, and kubectl (from PATH or built by e2e/cluster/tools.sh) to read YAML.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
kubectl=$(command -v kubectl || printf '%s/kubectl' "$(e2e/cluster/tools.sh kube)")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

mkdir -p "$scratch/json" "$scratch/made/kinds"
for crd in crds/yaml/*.yaml; do
  "$kubectl" annotate --local -f "$crd" -o json reference=generated >"$scratch/json/$(basename "$crd" .yaml).json"
done
python3 docs/reference.py "$scratch/json" crds/src/conditions.rs "$scratch/made"

case ${1:-} in
  "")
    mkdir -p docs/src/reference/kinds
    rm -f docs/src/reference/kinds/*.md
    cp "$scratch"/made/kinds/*.md docs/src/reference/kinds/
    cp "$scratch/made/conditions.md" docs/src/reference/conditions.md
    ;;
  --check)
    same=yes
    diff -r "$scratch/made/kinds" docs/src/reference/kinds || same=''
    diff "$scratch/made/conditions.md" docs/src/reference/conditions.md || same=''
    [[ -n $same ]] || { echo "the reference is not up to date: run docs/reference.sh" >&2; exit 1; }
    ;;
  *) echo "usage: docs/reference.sh [--check]" >&2; exit 2 ;;
esac
