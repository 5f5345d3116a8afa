#!/usr/bin/env bash
# A throwaway S3 server (versitygw over a temporary folder) for the tests of the backup engine.
#
#   e2e/s3/server.sh up     starts one and prints PGRAIL_TEST_S3="endpoint=… key=… secret=… bucket=… folder=… state=…"
#   e2e/s3/server.sh down [STATE]   stops that server (or, without STATE, every server this script started) and removes its data
#   e2e/s3/server.sh install        only builds the server into the cache and prints the path of the binary
#   e2e/s3/server.sh run COMMAND…   up, COMMAND with PGRAIL_TEST_S3 in its environment, down
#
# PGRAIL_S3_SIZE=8m puts the data on a tmpfs of that size (needs root): how a full store behaves.
# Two runs never share a port or a folder; leftovers of a killed run are stopped by the next `down`.
set -euo pipefail

version=v1.8.0
cache=${PGRAIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pgrail}
binary=$cache/bin/versitygw-$version
states=${TMPDIR:-/tmp}/pgrail-s3-$(id -u)

say() { printf '%s\n' "e2e/s3: $*" >&2; }

install_server() {
    [[ -x $binary ]] && return
    command -v go >/dev/null || { say "Go is needed to build the S3 server: install Go 1.24 or newer"; exit 1; }
    mkdir -p "$cache/bin"
    local build
    build=$(mktemp -d "$cache/bin/.versitygw.XXXXXX")
    say "building versitygw $version (about two minutes, once)"
    if ! GOBIN=$build GOFLAGS=-modcacherw go install "github.com/versity/versitygw/cmd/versitygw@$version" >&2; then
        rm -rf "$build"
        exit 1
    fi
    mv -f "$build/versitygw" "$binary"
    rm -rf "$build"
}

alive() { [[ -n ${1:-} && -r /proc/$1/cmdline ]] && tr '\0' ' ' <"/proc/$1/cmdline" | grep -q versitygw; }

free_port() {
    # The kernel names a free port; the server is started at once, and `up` tries again when someone was faster.
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

up() {
    install_server
    mkdir -p "$states"
    local state key secret port pid try
    state=$(mktemp -d "$states/run.XXXXXX")
    mkdir -p "$state/data"
    if [[ -n ${PGRAIL_S3_SIZE:-} ]]; then
        mount -t tmpfs -o "size=$PGRAIL_S3_SIZE" pgrail-s3 "$state/data"
    fi
    mkdir -p "$state/data/backups"
    key=pgrail$RANDOM
    secret=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    for try in 1 2 3 4 5; do
        port=$(free_port)
        ROOT_ACCESS_KEY=$key ROOT_SECRET_KEY=$secret \
            setsid "$binary" --port "127.0.0.1:$port" --region us-east-1 --quiet posix "$state/data" \
            >"$state/log" 2>&1 </dev/null &
        pid=$!
        printf '%s\n' "$pid" >"$state/pid"
        for _ in $(seq 1 100); do
            alive "$pid" || break
            if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
                printf 'PGRAIL_TEST_S3="endpoint=http://127.0.0.1:%s key=%s secret=%s bucket=backups folder=%s state=%s"\n' \
                    "$port" "$key" "$secret" "$state/data" "$state"
                return
            fi
            sleep 0.1
        done
        alive "$pid" && kill "$pid" 2>/dev/null
        say "try $try: the server did not listen on port $port"
    done
    tail -n 20 "$state/log" >&2 || true
    down "$state"
    exit 1
}

down() {
    local state=$1 pid
    case $state in "$states"/run.*) ;; *) say "not a state folder of this script: $state"; exit 1 ;; esac
    pid=$(cat "$state/pid" 2>/dev/null || true)
    if alive "$pid"; then
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 1 50); do alive "$pid" || break; sleep 0.1; done
        alive "$pid" && kill -9 "$pid" 2>/dev/null
    fi
    if mountpoint -q "$state/data" 2>/dev/null; then umount "$state/data" || umount -l "$state/data"; fi
    rm -rf "$state"
}

case ${1:-} in
install) install_server; printf '%s\n' "$binary" ;;
up) up ;;
down)
    if [[ -n ${2:-} ]]; then
        down "$2"
    else
        for state in "$states"/run.*; do [[ -d $state ]] && down "$state"; done
    fi
    ;;
run)
    shift
    line=$(up)
    value=${line#PGRAIL_TEST_S3=\"}
    value=${value%\"}
    trap 'down "${value##*state=}"' EXIT
    PGRAIL_TEST_S3=$value "$@"
    ;;
*)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 64
    ;;
esac
