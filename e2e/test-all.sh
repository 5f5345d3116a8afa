#!/usr/bin/env bash
# Tests every version of PostgreSQL and Kubernetes that the README names, and writes docs/src/tested.md from the results.
#
#   e2e/test-all.sh                    everything (hours)
#   e2e/test-all.sh STAGE[@VERSION]... some of it: engines, or controllers@v1.33.13. The rows of the page that are not run
#                                      keep their date and commit
#
# Environment: PGRAIL_TEST_MAJORS, the PostgreSQL versions of the stages engines and controllers (default "15 16 17 18").
# e2e/tested.tsv has a line for each stage, version of Kubernetes and versions of PostgreSQL: its last run. The exit code is 1 when a test failed.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
results=e2e/tested.tsv page=docs/src/tested.md
majors=${PGRAIL_TEST_MAJORS:-15 16 17 18}
# shellcheck source=cluster/lib.sh
source e2e/cluster/lib.sh
# Versions of the README besides the one of e2e/cluster/kube/go.mod: none now.
others=()

cells=("$@")
if (( ${#cells[@]} == 0 )); then
  cells=(lint process chart book engines controllers page node regress)
  for version in "${others[@]}"; do cells+=("chart@$version" "controllers@$version"); done
fi

counts=$(mktemp)
trap 'rm -f "$counts"' EXIT
commit=$(git rev-parse --short HEAD)
[[ -z $(git status --porcelain --untracked-files=no) ]] || commit+=" with changes"
status=0
for cell in "${cells[@]}"; do
  stage=${cell%@*} version=$default_kubernetes
  [[ $cell != *@* ]] || version=${cell#*@}
  : >"$counts"
  PGRAIL_TEST_MAJORS=$majors PGRAIL_KUBERNETES=$version PGRAIL_TEST_COUNTS=$counts e2e/test.sh "$stage" || status=1
  [[ -s $counts ]] || continue
  postgres=- kubernetes=-
  case $stage in
    engines | controllers) postgres=$(for major in $majors; do "$(e2e/postgres/software.sh "$major")/postgres" --version | grep -oE '[0-9]+\.[0-9]+' | head -n 1; done | paste -sd ' ') ;;
    page) postgres=$("$(e2e/postgres/software.sh "${majors##* }")/postgres" --version | grep -oE '[0-9]+\.[0-9]+' | head -n 1) ;;
    node) postgres=18 ;;
    regress) postgres=$("$(e2e/postgres/software.sh 18)/postgres" --version | grep -oE '[0-9]+\.[0-9]+' | head -n 1) ;;
  esac
  case $stage in controllers | page | node | chart) kubernetes=$version ;; esac
  # A stage and versions have one line: the last run. Minor versions of PostgreSQL make no difference.
  { awk -F '\t' -v stage="$stage" -v kubernetes="$kubernetes" -v postgres="$postgres" '
      function major(versions) { gsub(/\.[0-9]+/, "", versions); return versions }
      !($1 == stage && $2 == kubernetes && major($3) == major(postgres))' "$results" 2>/dev/null || true
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$stage" "$kubernetes" "$postgres" "$(cut -f 2- "$counts")" "$(date -u +%F)" "$commit"; } >"$results.new"
  mv "$results.new" "$results"
done

{
  cat <<'P'
# What was tested

Written by `make test-all`. Each row is the last run of a stage of the tests on these versions; `-` means that the stage does
not depend on the version. A stage or a version without a row has no recorded run.

| Stage | PostgreSQL | Kubernetes | Passed | Failed | Skipped | Minutes | Date | Commit |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
P
  sort -t $'\t' -k 1,1 -k 2,2V "$results" | awk -F '\t' '{ printf "| %s | %s | %s | %s | %s | %s | %.0f | %s | `%s` |\n", $1, $3, $2, $4, $5, $6, $7 / 60, $8, $9 }'
  cat <<'P'

- `engines`: guard, dump and connections on every PostgreSQL version of the row, with poolers and an S3 server
- `controllers`: the operator as a process, on an API server without nodes; CRDs with their CEL rules
- `page`: the page of the operator in a real Chromium, with a keyboard, on a phone, with accessibility checks
- `node`: the demo with real pods: image, Helm, guard, stopped delete, backup, uninstall
- `chart`: the chart and the kustomize base, also installed on an API server
- `process`, `lint`, `book`: the process manager of the tests, lints, this book
- `regress`: PostgreSQL's own regression tests, three times: without pgrail, with a guard on tables of another schema, and
  while a guard on every table of the tests' schema is applied again every half second (`make test-regress`)

Of PostgreSQL's own tests, these differences from the expected output are allowed:

| Test | Changed lines | Reason |
| --- | --- | --- |
P
  awk -F '\t' '!/^#/ && NF { gsub(/\|/, "\\|", $3); printf "| `%s` | `%s` | %s |\n", $2, $3, $4 }' e2e/regress/allowed.tsv
} >"$page"
echo "wrote $page" >&2
exit "$status"
