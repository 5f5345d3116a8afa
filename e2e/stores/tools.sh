#!/usr/bin/env bash
# tools.sh: makes sure of the emulator of Azure Blob Storage, and prints the directory of its packages. What it cannot install it
# reports, with exit code 77.
set -euo pipefail
source "$(dirname "$0")/../cluster/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)
for program in node npm curl; do command -v "$program" >/dev/null || missing "$program"; done
npm_packages azurite "$here"
