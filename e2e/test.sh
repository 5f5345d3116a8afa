#!/usr/bin/env bash
# Every test of pgrail, stage by stage. The last line is `N passed, N failed` (and `, N skipped`, where a part of the
# machine is missing: said loudly, never counted as passed, and a failure where CI=true).
#
#   e2e/test.sh            all stages
#   e2e/test.sh STAGE...    some of: lint process engines controllers node chart book
#
# Logs are kept in target/test-logs. A stage that fails does not keep the next from running.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
target=${CARGO_TARGET_DIR:-$root/target}
logs=$target/test-logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0
cluster=test-$$

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

# Counts what a log says of its tests: cargo's summaries, or a script's own last line.
count() { # LOG STATUS STAGE
  local log=$1 status=$2 stage=$3 ok=0 bad=0 left=0 line
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
  local name=$1 log=$logs/$1.log status started=$SECONDS
  shift
  say "$name: $*"
  "$@" >"$log" 2>&1
  status=$?
  if (( status == 77 )); then
    skipped=$((skipped + 1))
    printf 'SKIPPED %s: a part of this machine is missing:\n' "$name"
    tail -n 20 "$log"
  else
    count "$log" "$status" "$name"
  fi
  printf '%s took %d s\n' "$name" $((SECONDS - started))
}

check() { # NAME COMMAND...: one test that is no test program
  local name=$1
  shift
  if "$@"; then echo "ok    $name"; checks_ok=$((checks_ok + 1)); else echo "FAIL  $name"; checks_bad=$((checks_bad + 1)); fi
}

lint() {
  local checks_ok=0 checks_bad=0
  check "formatted (cargo fmt)" cargo fmt --check
  check "lints (cargo clippy)" cargo clippy --locked --workspace --all-targets -- -D warnings
  check "nothing of this machine in the repository" machine_is_not_named
  printf '%d passed, %d failed\n' "$checks_ok" "$checks_bad"
  (( checks_bad == 0 ))
}

machine_is_not_named() {
  ! git grep -nIF -e "$(dirname "$root")/" -- . ':!.ci'
}

# Everything that the stages run, compiled once: a part of the workspace by itself would have other features, and be
# compiled anew with everything below it.
build() { cargo test --locked --workspace --no-run; }

engines() {
  build || return
  e2e/s3/server.sh run e2e/postgres/servers.sh with \
    cargo test --locked --workspace --exclude pgrail-e2e --no-fail-fast
}

# Controllers as a process of this machine, against an apiserver without nodes.
controllers() {
  build || return
  e2e/cluster/up.sh --name "$cluster" --owner $$ || return
  local status=0
  (
    eval "$(e2e/cluster/env.sh --name "$cluster")"
    export PGRAIL_TEST_KUBECONFIG=$KUBECONFIG PGRAIL_BIN=$target/debug/pgrail
    e2e/s3/server.sh run e2e/postgres/servers.sh with \
      cargo test --locked --workspace --test controllers --no-fail-fast -- --test-threads 4
  ) || status=$?
  e2e/cluster/down.sh --name "$cluster" || status=1
  return "$status"
}

# The whole story with real pods: image, helm, guard, stopped delete, backup, and nothing left afterwards.
node() {
  build || return
  e2e/cluster/requirements.sh node || return 77
  local status=0
  DEMO_PROGRAM=$target/debug/pgrail demo/demo.sh || status=$?
  if (( status == 0 )); then echo "1 passed, 0 failed"; else echo "0 passed, 1 failed"; fi
  return "$status"
}

trap 'e2e/cluster/down.sh --name "$cluster" >/dev/null 2>&1' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

stages=("$@")
(( ${#stages[@]} )) || stages=(lint process engines controllers node chart book)
for name in "${stages[@]}"; do
  case $name in
    lint) stage lint lint ;;
    process) stage process e2e/process/smoke.sh ;;
    engines) stage engines engines ;;
    controllers) stage controllers controllers ;;
    node) stage node node ;;
    chart) stage chart charts/test.sh ;;
    book) stage book docs/test.sh ;;
    *) echo "no such stage: $name" >&2; exit 2 ;;
  esac
done

say "all of it took $SECONDS s"
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
