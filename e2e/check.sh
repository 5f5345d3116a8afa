# Sourced by test scripts: runs one test at a time and counts. Messages like those of `cargo test`, so that e2e/test.sh
# counts them all in the same way.
# shellcheck shell=bash
passed=0 failed=0

# check WHAT COMMAND...: passes when the command succeeds, otherwise shows its output. A function as the command ends at
# its first command that fails: it runs in a subshell that is no condition, since in one `set -e` has no effect.
check() {
  local what=$1 began=$SECONDS output status; shift
  output=$(mktemp)
  set +e
  (set -e; "$@") >"$output" 2>&1
  status=$?
  set -e
  if (( status == 0 )); then
    passed=$((passed + 1))
    printf 'ok    %s%s\n' "$what" "$( (( SECONDS - began < 3 )) || printf ' (%s s)' $((SECONDS - began)))"
  else
    failed=$((failed + 1))
    printf 'FAIL  %s\n' "$what"
    tail -n 40 "$output" | sed 's/^/      /'
  fi
  rm -f "$output"
}
not() { ! "$@"; }

# The last line of a test script, and its exit code.
count_line() {
  printf '%s passed, %s failed\n' "$passed" "$failed"
  (( failed == 0 ))
}
