# shellcheck shell=bash disable=SC2016,SC2034,SC2154
# Sourced by the demo's scripts: its output, waiting, failing.

began=${EPOCHREALTIME/./}
if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
  terminal=yes bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' cyan=$'\e[36m' plain=$'\e[0m'
else
  terminal='' bold='' dim='' green='' red='' cyan='' plain=''
fi
current_step="starting"

now() { printf '%s\n' "$(( ${EPOCHREALTIME/./} / 1000 ))"; }
elapsed() { local us=$(( ${EPOCHREALTIME/./} - began )); printf '%d:%02d' $(( us / 60000000 )) $(( us / 1000000 % 60 )); }
seconds() { printf '%d.%d s' $(( $1 / 1000 )) $(( $1 % 1000 / 100 )); }

step() { current_step=$*; printf '\n%s== %s%s  %s[%s]%s\n' "$bold" "$*" "$plain" "$dim" "$(elapsed)" "$plain"; }
tell() { printf '   %s\n' "$@"; }
good() { printf '   %s✓ %s%s\n' "$green" "$*" "$plain"; }
loud() { printf '\n%s!! %s%s\n' "$bold$red" "$*" "$plain"; }
indent() { sed 's/^/   /'; }

# Prints a command as a person would type it, and runs it.
show() {
  local words
  words=$(printf ' %q' "$@")
  printf '   %s$%s%s\n' "$cyan" "${words//\\/}" "$plain"
  "$@" 2>&1 | indent
}

stop() { printf '\n%s\n' "${red}The demo stopped at: $current_step${plain}" "$@" >&2; exit 1; }

# await SECONDS WHAT COMMAND...: until the command succeeds; on a terminal with the time that passed.
await() {
  local limit=$1 what=$2 from; shift 2
  from=$(now)
  until "$@" >/dev/null 2>&1; do
    if (( $(now) - from > limit * 1000 )); then
      [[ -z $terminal ]] || printf '\r\e[K'
      stop "$what: not within $limit s"
    fi
    [[ -z $terminal ]] || printf '\r   %s… %s (%s)%s\e[K' "$dim" "$what" "$(seconds $(( $(now) - from )))" "$plain"
    sleep 0.1
  done
  [[ -z $terminal ]] || printf '\r\e[K'
  awaited=$(( $(now) - from ))
}

# Long commands, whose output only matters when they fail: it goes to a file. `begin` starts one, `finished` waits for it,
# `quietly` does both.
declare -A begun_process begun_time
log_of() { printf '%s/%s.log\n' "$logs" "$(tr -c 'a-z0-9\n' '-' <<<"${1,,}" | cut -c 1-40)"; }
begin() { # WHAT COMMAND...
  local what=$1; shift
  begun_time[$what]=$(now)
  { "$@" && now >"$(log_of "$what").end"; } >"$(log_of "$what")" 2>&1 </dev/null &
  begun_process[$what]=$!
}
finished() { # WHAT
  local what=$1 log process=${begun_process[$1]} from=${begun_time[$1]}
  log=$(log_of "$what")
  [[ -n $terminal ]] || ! kill -0 "$process" 2>/dev/null || tell "$what …"
  while kill -0 "$process" 2>/dev/null; do
    [[ -z $terminal ]] || printf '\r   %s… %s (%s) %s%s\e[K' "$dim" "$what" "$(seconds $(( $(now) - from )))" \
      "$(tail -n 1 "$log" 2>/dev/null | tr -d '\r' | cut -c 1-60)" "$plain"
    sleep 0.1
  done
  [[ -z $terminal ]] || printf '\r\e[K'
  unset "begun_process[$what]"
  if ! wait "$process"; then
    tail -n 25 "$log" >&2
    stop "failed: $what" "The whole log is $log"
  fi
  good "$what ($(seconds $(( $(cat "$log.end") - from ))))"
}
quietly() { begin "$@"; finished "$1"; }
end_begun() {
  local process
  for process in "${begun_process[@]}"; do
    pkill -TERM -P "$process" 2>/dev/null || true
    kill "$process" 2>/dev/null || true
  done
}

password() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }
