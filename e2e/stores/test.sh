#!/usr/bin/env bash
# test.sh [ARGUMENT...]: dumps, verifications and restores through az://, with Azurite, an emulator of Azure Blob Storage, on a free port
# of the loopback address. The arguments are those of the test program. Not part of `make test`: `make test-stores`.
set -euo pipefail
cd "$(dirname "$0")/../.."
source e2e/process/lib.sh
source e2e/build.sh
if [[ ${1:-} != --with-servers ]]; then
  exec e2e/postgres/servers.sh with e2e/stores/test.sh --with-servers "$@"
fi
shift
azurite=$(e2e/stores/tools.sh)
data=$(mktemp -d)
# Azurite writes until it has ended, and waits for its clients before it ends by itself.
trap 'kill -KILL $(jobs -p) 2>/dev/null || true; wait; rm -rf "$data"' EXIT
trap 'exit 130' INT TERM HUP
port=$(free_port)
# In the container of its well-known account; the version that the client asks for need not be known to it.
setpriv --pdeathsig TERM node "$azurite/node_modules/.bin/azurite-blob" --blobHost 127.0.0.1 --blobPort "$port" --location "$data" \
  --skipApiVersionCheck --silent >"$data/log" 2>&1 &
for _ in {1..150}; do ! port_open "$port" || break; sleep 0.2; done
port_open "$port" || { cat "$data/log" >&2; echo "Azurite did not start" >&2; exit 1; }
node e2e/stores/container.mjs "http://127.0.0.1:$port" backups
export AZURE_STORAGE_USE_EMULATOR=true AZURITE_BLOB_STORAGE_URL=http://127.0.0.1:$port PGRAIL_TEST_AZURE=az://backups/dumps
cargo test --locked --workspace --test emulators -- "$@"
