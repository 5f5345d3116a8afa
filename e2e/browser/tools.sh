#!/usr/bin/env bash
# tools.sh: makes sure of what the test of the page needs, a Chromium, Node.js and the packages of package-lock.json, and
# prints the directory of the packages. What it cannot install it reports, with exit code 77.
# tools.sh --missing: installs nothing and prints, a line each, what has to be installed and how long that takes.
set -euo pipefail
source "$(dirname "$0")/../cluster/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)

find_chromium() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

if [[ ${1:-} == --missing ]]; then
  find_chromium >/dev/null && [[ -d $(npm_directory browser "$here") ]] || echo "Chromium and its driver, for the test of the page: about 1 minute, mostly downloads"
  exit
fi

lacking=()
find_chromium >/dev/null || lacking+=(chromium)
command -v node >/dev/null || lacking+=(nodejs)
command -v npm >/dev/null || lacking+=(npm)
install_packages "${lacking[@]}"
# On Ubuntu the package is empty: it points to a snap.
find_chromium >/dev/null || missing "chromium (its package has no such program)"
(( $(node --version | sed 's/^v\([0-9]*\).*/\1/') >= 20 )) || missing "Node.js 20 or later (this is $(node --version))"

npm_packages browser "$here"
