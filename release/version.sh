#!/usr/bin/env bash
# The version of pgrail is the one of the workspace in Cargo.toml. It is also in the files below.
#   release/version.sh                prints it
#   release/version.sh --check        exit code 1, and a list, if another version is in one of the files
#   release/version.sh --set X.Y.Z    writes a version into all of them, but for CHANGELOG.md
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

semver='[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]*[0-9A-Za-z])?'
# FILE:WHAT-IS-BEFORE-A-VERSION, as an extended regular expression.
places=(
  'Cargo.toml:^version = "'
  'charts/pgrail/Chart.yaml:^version: |^appVersion: "|/pgrail:'
  'README.md:/pgrail:|image\.tag=|^Version |pgrail-'
  'docs/src/start/install.md:/pgrail:|image\.tag=|newTag: |pgrail-|release-'
  'docs/src/operations/gitops.md:pgrail-|release-|tag: '
  'docs/src/operations/upgrade-uninstall.md:image\.tag='
  'deploy/kustomize/overlays/image/kustomization.yaml:newTag: '
  'operator/src/operator/run.rs:--image pgrail:'
)
version=$(sed -nE "s/^version = \"($semver)\"/\1/p" Cargo.toml)

# versions FILE BEFORE: each version in the file, with its line.
versions() { grep -noE "($2)$semver" "$1" | sed -E "s#^([0-9]+):(${2//^/})($semver)\$#\1:\3#"; }
lock() { awk '/^name = "pgrail/ { ours = 1 } ours && /^version/ { gsub(/"/, "", $3); print NR ":" $3; ours = 0 }' Cargo.lock; }

case ${1:-} in
  "") printf '%s\n' "$version" ;;
  --check)
    wrong=0
    report() { # FILE, and `LINE:VERSION` on standard input
      local line other none=yes
      while IFS=: read -r line other; do
        none=
        [[ $other == "$version" ]] || { echo "$1:$line: $other, but Cargo.toml has $version"; wrong=1; }
      done
      [[ -z $none ]] || { echo "$1: no version found"; wrong=1; }
    }
    for place in "${places[@]}"; do report "${place%%:*}" < <(versions "${place%%:*}" "${place#*:}"); done
    report Cargo.lock < <(lock)
    report CHANGELOG.md < <(grep -nE "^## $semver" CHANGELOG.md | head -n 1 | sed -E "s/^([0-9]+):## ($semver).*/\1:\2/")
    exit "$wrong"
    ;;
  --set)
    new=${2:-}
    [[ $new =~ ^$semver$ ]] || { echo "usage: release/version.sh --set X.Y.Z" >&2; exit 2; }
    for place in "${places[@]}"; do sed -i -E "s#(${place#*:})$semver#\1$new#g" "${place%%:*}"; done
    sed -i -E "/^name = \"pgrail/ { n; s/^version = .*/version = \"$new\"/ }" Cargo.lock
    prerelease=false
    [[ $new != *-* ]] || prerelease=true
    sed -i -E "s#(artifacthub.io/prerelease: )\"[a-z]+\"#\1\"$prerelease\"#" charts/pgrail/Chart.yaml
    charts/sync.sh
    echo "Now describe the changes under \`## $new\` in CHANGELOG.md." >&2
    ;;
  *) echo "usage: release/version.sh [--check | --set X.Y.Z]" >&2; exit 2 ;;
esac
