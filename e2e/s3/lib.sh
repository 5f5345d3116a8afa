# Sourced by the scripts of this directory: where runs are, and what outlives their processes.
# shellcheck shell=bash
s3_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kind=s3
registry=${TMPDIR:-/tmp}/pgrail-$(id -u)/s3
# shellcheck source=../process/lib.sh
source "$s3_dir/../process/lib.sh"

after_end() { # RUN
  local data=$1/data
  if mountpoint -q "$data" 2>/dev/null; then umount "$data" || umount -l "$data"; fi
}
