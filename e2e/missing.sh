#!/usr/bin/env bash
# missing.sh PART...: prints, a line each, what has to be compiled or downloaded before the parts can run, and how long
# that takes on two processors. Parts: pgrail tests kube versitygw gitops manifests cloudnative-pg browser
# image, and PostgreSQL versions. Builds nothing.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
built=${CARGO_TARGET_DIR:-$root/target}/debug
for part in "$@"; do
  case $part in
    pgrail) [[ -x $built/pgrail ]] || echo "pgrail: about 6 minutes" ;;
    tests) compgen -G "$built/deps/controllers-*" >/dev/null || echo "pgrail and its tests: about 10 minutes" ;;
    kube|versitygw|gitops|manifests|cloudnative-pg) "$root/e2e/cluster/tools.sh" --missing "$part" ;;
    browser) "$root/e2e/browser/tools.sh" --missing ;;
    image) [[ -e ${PGRAIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pgrail}/images/debian-forky.tar ]] || docker info >/dev/null 2>&1 ||
      echo "the image's Debian with PostgreSQL 18: about 2 minutes, mostly downloads" ;;
    pgbouncer|1[5-9]) "$root/e2e/postgres/software.sh" --missing "$part" ;;
    *) echo "missing.sh: no such part: $part" >&2; exit 2 ;;
  esac
done
