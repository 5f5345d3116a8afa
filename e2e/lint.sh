#!/usr/bin/env bash
# Format, lints, licences, and names that must not stand in the repository. The last line is `N passed, N failed`.
#
# Lints do not take a build of their own: this builds all tests as `e2e/build.sh` does, with clippy as the compiler of the
# workspace's crates, and a second time cargo only repeats the warnings of the first.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=check.sh
source e2e/check.sh

no_warnings() {
  local output
  output=$(mktemp)
  e2e/build.sh >"$output" 2>&1 || { grep -E -A 12 '^(error|warning)' "$output" | tail -n 200; return 1; }
  ! grep -E -A 12 '^warning' "$output"
}
machine_is_not_named() { ! git grep -nIF -e "$(dirname "$root")/" -- . ':!.ci'; }

check "formatted (cargo fmt)" cargo fmt --check
check "no lint (clippy), no warning" no_warnings
check "the version is the same in all files" release/version.sh --check
check "pgrail --version is that version" grep -qx "pgrail $(release/version.sh)" <("${CARGO_TARGET_DIR:-target}/debug/pgrail" --version)
check "licences, sources and duplicate versions of dependencies" python3 e2e/deny.py
check "no path of this machine in the repository" machine_is_not_named
count_line
