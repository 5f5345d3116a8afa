#!/usr/bin/env bash
# build.sh [ARGUMENT...]: builds every test and the program, with clippy in the compiler's place for the crates of the
# workspace: one build serves lints and tests. (`cargo clippy` compiles nearly all dependencies a second time, as it
# checks only.) Used in this way, clippy-driver compiles like rustc and adds its warnings.
#
# `source build.sh` only sets the environment, for `cargo test` to find everything built.
driver=$(rustc --print sysroot)/bin/clippy-driver
if [[ -x $driver ]]; then
  export RUSTC_WORKSPACE_WRAPPER=$driver CLIPPY_ARGS=
else
  echo "no clippy-driver in $(dirname "$driver"): building without lints" >&2
fi
# Nothing is built a second time there: no time and no disk for it.
if [[ ${CI:-} == true ]]; then export CARGO_INCREMENTAL=0; fi
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  set -euo pipefail
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  # All of the workspace: a part of it has other features, and is compiled again with everything below it.
  exec cargo test --locked --workspace --no-run "$@"
fi
