#!/usr/bin/env bash
# end.sh RUN: ends a run whose owner has ended, as its own scripts would; started by its supervisor.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
run=$1
# shellcheck source=/dev/null
source "$run/settings"
library=$(dirname "$parts")/lib.sh
# shellcheck source=/dev/null
if [[ -e $library ]]; then source "$library"; fi
lock_registry
end_run "$run"
