#!/usr/bin/env bash
# part.sh RUN: the S3 server, a part of a run (e2e/process): picks a port, or takes the one it had, and becomes the server.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
run=$1
# shellcheck source=/dev/null
source "$run/settings"
port=$(cat "$run/port" 2>/dev/null || free_port)
printf '%s\n' "$port" >"$run/port.tried"
ROOT_ACCESS_KEY_ID=$key ROOT_SECRET_ACCESS_KEY=$secret exec "$program" "127.0.0.1:$port" "$run/data"
