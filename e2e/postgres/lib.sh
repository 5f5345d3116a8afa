# Sourced by every script of this directory: where runs are, and how programs are started as the server's user.
# shellcheck shell=bash disable=SC2034
postgres_dir="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
kind=postgres
registry="/tmp/pgrail-$(id -u)/pg" # short: the path of a socket has at most 107 bytes
# shellcheck source=../process/lib.sh
source "$postgres_dir/../process/lib.sh"

# as_server_user SIGNAL: sets the prefix of a command that runs as the server's user (PostgreSQL refuses root) and gets
# SIGNAL when its parent ends. A change of user resets what keep.sh set, so both stand in one setpriv.
as_server_user() {
  server_user=(setpriv --pdeathsig "$1")
  [[ $(id -u) != 0 ]] || server_user+=("--reuid=$(id -u nobody)" "--regid=$(id -g nobody)" --clear-groups)
  server_user+=(--)
}

give_to_server_user() { # PATH...
  [[ $(id -u) != 0 ]] || chown nobody: "$@"
}

# The programs, where the server's user can reach them: root's home is usually closed to others.
programs_for_server() { # MAJOR|pgbouncer DIRECTORY
  local bin below root cache="${PGRAIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pgrail}/postgres"
  bin="$("$postgres_dir/software.sh" "$1")"
  as_server_user KILL
  if ! "${server_user[@]}" test -x "$bin"; then
    below="${bin#"$cache/"}"
    root="$cache/${below%%/*}"
    cp -al "$root" "$2/software" 2>/dev/null || { rm -rf "$2/software" && cp -a "$root" "$2/software"; }
    bin="$2/software/${below#*/}"
  fi
  echo "$bin"
}

write_uri() { # DIRECTORY PORT: from now on the part keeps this port
  (umask 077 && printf 'postgres://postgres:%s@127.0.0.1:%s/postgres' "$(cat "$run/password")" "$2" >"$1/uri.new")
  mv "$1/uri.new" "$1/uri"
}
port_of() { # URI
  local rest=${1##*127.0.0.1:}
  printf '%s\n' "${rest%%/*}"
}
# The port of the part's first start that succeeded, or else a free one.
own_port() { # DIRECTORY
  if [[ -s $1/uri ]]; then port_of "$(cat "$1/uri")"; else free_port; fi
}
