#!/usr/bin/env bash
# Every test of pgrail, stage by stage. The last line is `N passed, N failed`, with `, N skipped` when this machine cannot
# run a part: reported, never counted as passed, and a failure where CI=true.
#
#   e2e/test.sh            all stages
#   e2e/test.sh STAGE...   some of: lint process engines controllers page node chart book; and regress, faults, e2e, cloudnative-pg and
#                          release, which are not part of all
#
# Environment:
#   PGRAIL_TEST_MAJORS   the PostgreSQL versions of the stages engines and controllers (default "15 18")
#   PGRAIL_KUBERNETES    the version of Kubernetes, such as v1.33.13 (default: that of e2e/cluster/kube/go.mod)
#   PGRAIL_TEST_REGRESS  the PostgreSQL version of the stage regress (default 18)
#   PAGE_PICTURES        a directory: the stage page writes the pictures of the book into it (docs/src/pictures)
#   PGRAIL_TEST_COUNTS   a file to which a line is added for each stage: name, passed, failed, skipped, seconds
# Logs are kept in target/test-logs. A stage that fails does not keep the next from running.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
target=${CARGO_TARGET_DIR:-$root/target}
logs=$target/test-logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0
cluster=test-$$
majors=${PGRAIL_TEST_MAJORS:-15 18}
# shellcheck source=build.sh
source e2e/build.sh

headline() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

# Counts the tests of a log, into ok, bad and left: cargo's summaries, or a script's own last line.
count() { # LOG STATUS STAGE
  local log=$1 status=$2 stage=$3 line
  while read -r line; do
    [[ $line =~ ([0-9]+)\ passed\;\ ([0-9]+)\ failed\;\ ([0-9]+)\ ignored ]] || continue
    ok=$((ok + BASH_REMATCH[1])) bad=$((bad + BASH_REMATCH[2])) left=$((left + BASH_REMATCH[3]))
  done < <(grep -E '^test result:' "$log")
  if [[ $(tail -n 1 "$log") =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed ]]; then
    ok=$((ok + BASH_REMATCH[1])) bad=$((bad + BASH_REMATCH[2]))
  fi
  # Something failed that is no test: a build, a server that did not start.
  if (( status != 0 && bad == 0 )); then bad=1; fi
  if (( status == 0 && ok == 0 )); then
    echo "$stage: no test ran"
    bad=1
  fi
  passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + left))
  printf '%s: %d passed, %d failed%s\n' "$stage" "$ok" "$bad" "$( ((left)) && printf ', %d skipped' "$left")"
  if (( bad )); then
    echo "--- the end of $log"
    grep -E '^(test .*FAILED|FAIL |error|---- .* stdout|thread .* panicked)' "$log" | tail -n 40
    tail -n 80 "$log"
  fi
}

stage() { # NAME COMMAND...
  local name=$1 log=$logs/$1.log status started=$SECONDS ok=0 bad=0 left=0
  shift
  headline "$name: $*"
  "$@" >"$log" 2>&1
  status=$?
  if (( status == 77 )); then
    left=1 skipped=$((skipped + 1))
    printf 'SKIPPED %s: this machine lacks a part:\n' "$name"
    tail -n 20 "$log"
  else
    count "$log" "$status" "$name"
  fi
  printf '%s took %d s\n' "$name" $((SECONDS - started))
  if [[ -n ${PGRAIL_TEST_COUNTS:-} ]]; then
    printf '%s\t%d\t%d\t%d\t%d\n' "$name" "$ok" "$bad" "$left" $((SECONDS - started)) >>"$PGRAIL_TEST_COUNTS"
  fi
}

# Everything that has to be compiled or downloaded starts now, in the background; a stage waits for what it needs. The
# processes end with this script. Their exit codes do not matter: the stage that needs a part reports why it is missing.
prepare() { # STAGE...
  local parts=() list
  [[ " $* " =~ \ (lint|engines|controllers|page|node|regress|faults|e2e|cloudnative-pg)\  ]] && { parts+=(tests); background build e2e/build.sh; }
  [[ " $* " =~ \ (controllers|page|node|chart|book|faults|e2e|cloudnative-pg|release)\  ]] && { parts+=(kube); background kube e2e/cluster/tools.sh kube kubernetes; }
  [[ " $* " =~ \ controllers\  ]] && { parts+=(gitops); background gitops e2e/cluster/tools.sh gitops; }
  [[ " $* " =~ \ chart\  ]] && { parts+=(manifests); background manifests e2e/cluster/tools.sh manifests; }
  [[ " $* " =~ \ cloudnative-pg\  ]] && { parts+=(cloudnative-pg); background cloudnative-pg e2e/cluster/tools.sh cloudnative-pg; }
  [[ " $* " =~ \ (process|engines|controllers|node|faults|e2e|cloudnative-pg)\  ]] && { parts+=(versitygw); background versitygw e2e/cluster/tools.sh versitygw; }
  [[ " $* " =~ \ page\  ]] && { parts+=(browser); background browser e2e/browser/tools.sh; }
  if [[ " $* " =~ \ (process|engines|controllers|page)\  ]]; then
    # shellcheck disable=SC2206 # words
    parts+=($majors pgbouncer)
    # shellcheck disable=SC2086
    background postgres e2e/postgres/software.sh $majors pgbouncer
  fi
  if [[ " $* " =~ \ (node|faults|e2e|cloudnative-pg|release)\  && $(id -u) == 0 ]]; then parts+=(image); background image e2e/cluster/image.sh --postgresql 18 --no-load; fi
  (( ${#parts[@]} )) || return 0
  list=$(e2e/missing.sh "${parts[@]}")
  [[ -n $list ]] || return 0
  headline "what is missing, and now built in the background (times of two idle processors)"
  printf '%s\n' "$list"
}
background() { # NAME COMMAND...
  local name=$1; shift
  setpriv --pdeathsig TERM "$@" >"$logs/build-$name.log" 2>&1 </dev/null &
}

engines() {
  e2e/build.sh || return
  local ignored=()
  # Without the schemas of other projects, the tests of them are reported as skipped.
  if e2e/postgres/schema.sh zabbix kea; then ignored=(-- --include-ignored --skip apiserver::); fi
  e2e/s3/server.sh run e2e/postgres/servers.sh with \
    cargo test --locked --workspace --exclude pgrail-e2e --no-fail-fast "${ignored[@]}"
}

# with_apiserver COMMAND...: beside an API server without nodes, for operators that are processes of this machine.
with_apiserver() {
  local status=0
  e2e/cluster/up.sh --name "$cluster" --owner $$ || return
  (
    eval "$(e2e/cluster/env.sh --name "$cluster")"
    export PGRAIL_TEST_KUBECONFIG=$KUBECONFIG PGRAIL_BIN=$target/debug/pgrail
    "$@"
  ) || status=$?
  e2e/cluster/down.sh --name "$cluster" || status=1
  return "$status"
}

on_apiserver() {
  local status=0 ignored=()
  # Without the library, the test of a clock that is set is reported as skipped.
  if PGRAIL_TEST_CLOCK=$(e2e/clock.sh); then export PGRAIL_TEST_CLOCK; ignored=(--include-ignored); fi
  e2e/gitops/record.sh "$logs/objects" e2e/s3/server.sh run e2e/postgres/servers.sh with \
    cargo test --locked --workspace --test controllers --no-fail-fast -- --test-threads 4 "${ignored[@]}" || status=$?
  # The operator's own tests that write to the API server.
  cargo test --locked --workspace --bin pgrail -- --ignored apiserver:: || status=$?
  return "$status"
}

controllers() {
  e2e/build.sh || return
  local status=0
  with_apiserver on_apiserver || status=$?
  # What Flux, Helm and Argo CD conclude from each state that the tests caused.
  "$(e2e/cluster/tools.sh gitops)/gitops" deploy/argocd/health.lua "$logs"/objects/* || status=1
  return "$status"
}

# The page of the operator, in a real Chromium.
page() {
  e2e/build.sh || return
  local modules
  modules=$(e2e/browser/tools.sh) || return
  # One version of PostgreSQL: what the page shows does not depend on it.
  with_apiserver env PGRAIL_BROWSER_MODULES="$modules" PGRAIL_TEST_MAJORS="${majors##* }" e2e/postgres/servers.sh with \
    cargo test --locked --workspace --test browser -- --nocapture
}

# The demo, with real pods: image, helm, guard, stopped delete, backup, and nothing left afterwards.
node() {
  e2e/build.sh || return
  e2e/cluster/requirements.sh node || return 77
  local status=0
  DEMO_PROGRAM=$target/debug/pgrail demo/demo.sh || status=$?
  if (( status == 0 )); then echo "1 passed, 0 failed"; else echo "0 passed, 1 failed"; fi
  return "$status"
}

# PostgreSQL's own tests, in a database with guards.
regress() {
  e2e/build.sh || return
  PGRAIL_TEST_MAJORS=${PGRAIL_TEST_REGRESS:-18} PGRAIL_BIN=$target/debug/pgrail e2e/regress/test.sh
}

# What users do to a running pgrail, on a node with real pods.
faults() {
  e2e/build.sh || return
  PGRAIL_BIN=$target/debug/pgrail e2e/faults/run.sh
}

# The way of a user, from installation to uninstallation, on a node with real pods.
e2e() {
  e2e/build.sh || return
  PGRAIL_BIN=$target/debug/pgrail e2e/node/run.sh
}

# Beside a real CloudNativePG, on a node with real pods.
cloudnative-pg() {
  e2e/build.sh || return
  PGRAIL_BIN=$target/debug/pgrail e2e/cloudnative-pg/run.sh
}

trap 'e2e/cluster/down.sh --name "$cluster" >/dev/null 2>&1' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

stages=("$@")
(( ${#stages[@]} )) || stages=(process chart book lint engines controllers page node)
for name in "${stages[@]}"; do
  [[ $name =~ ^(lint|process|engines|controllers|page|node|chart|book|regress|faults|e2e|cloudnative-pg|release)$ ]] || { echo "no such stage: $name" >&2; exit 2; }
done
prepare "${stages[@]}"
for name in "${stages[@]}"; do
  case $name in
    lint) stage lint e2e/lint.sh ;;
    process) stage process e2e/process/smoke.sh ;;
    engines | controllers | page | node | regress | faults | e2e | cloudnative-pg) stage "$name" "$name" ;;
    chart) stage chart charts/test.sh ;;
    book) stage book docs/test.sh ;;
    release) stage release release/test.sh ;;
  esac
done

headline "all stages took $SECONDS s"
if [[ ${CI:-} == true ]] && (( skipped )); then
  echo "$skipped skipped, which counts as failed where CI=true"
  failed=$((failed + skipped))
fi
if (( skipped )) && [[ ${CI:-} != true ]]; then
  printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
else
  printf '%d passed, %d failed\n' "$passed" "$failed"
fi
(( failed == 0 ))
