# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by run.sh: waiting, comparing, and the rows of the table. Everything is observed with kubectl and psql alone.

namespace=shop
now() { printf '%s\n' "$(( ${EPOCHREALTIME/./} / 1000 ))"; }
seconds() { printf '%d.%d s\n' $(( $1 / 1000 )) $(( $1 % 1000 / 100 )); }

kc() { kubectl -n "$namespace" "$@"; }
field() { kc get "$1" "$2" -o "jsonpath={$3}"; }
# condition KIND NAME TYPE: "True Reason"
condition() { kc get "$1" "$2" -o "jsonpath={.status.conditions[?(@.type=='$3')].status} {.status.conditions[?(@.type=='$3')].reason}"; }
is() { [[ $(condition "$1" "$2" "$3") == "$4" ]]; } # KIND NAME TYPE "STATUS REASON"
message() { kc get "$1" "$2" -o "jsonpath={.status.conditions[?(@.type=='$3')].message}"; }
is_field() { [[ $(field "$1" "$2" "$3") == "$4" ]]; } # KIND NAME PATH VALUE
has_event() { # NAME REASON TEXT
  kc get events --field-selector "involvedObject.name=$1,reason=$2" -o 'jsonpath={range .items[*]}{.message}{"\n"}{end}' | grep -q -- "$3"
}
gone() { ! kc get "$1" "$2" >/dev/null 2>&1; }

psql_as() { # URL-VARIABLE SQL: rows, or the SQLSTATE
  # shellcheck disable=SC2016 # expanded in the pod
  kc exec toolbox -- sh -c 'eval "url=\$$1"; exec psql -X -A -t -q -v ON_ERROR_STOP=1 -v VERBOSITY=sqlstate "$url" -c "$2" 2>&1' \
    sh "$1" "$2" 2>/dev/null
}
admin() { psql_as ADMIN_URL "$1"; }
app() { psql_as APP_URL "$1"; }
# Whether the guard stops the delete of every user. It is never committed.
stopped() { [[ $(app "BEGIN; DELETE FROM ${1:-users}; ROLLBACK" || true) == *PGR01* ]]; }

# await SECONDS WHAT COMMAND...: until the command succeeds. The time that passed is in $awaited, in milliseconds.
await() {
  local limit=$1 what=$2 from; shift 2
  from=$(now)
  until "$@" >/dev/null 2>&1; do
    if (( $(now) - from > limit * 1000 )); then
      awaited=$(( $(now) - from ))
      echo "not within $limit s: $what" >&2
      return 1
    fi
    sleep 0.2
  done
  awaited=$(( $(now) - from ))
}
# Ends the fault: errexit does not hold in the condition that it is run in.
must() { "$@" || { echo "does not hold: $*" >&2; exit 1; }; }
not() { ! "$@"; }

passed=0 failed=0 rows=()
# fault ISSUE TITLE FUNCTION: runs it; the function prints what was seen, for the table.
fault() {
  local seen status=0
  printf '\n== %s\n' "$2" >&2
  seen=$("$3") || status=$?
  if (( status == 0 )); then
    passed=$((passed + 1))
    rows+=("| $2 | $seen |")
    printf 'ok: %s\n' "$seen" >&2
  else
    failed=$((failed + 1))
    rows+=("| $2 | **failed** |")
    printf 'FAILED: %s\n' "$2" >&2
    kc get pgrail -o wide >&2 || true
    kc get pods >&2 || true
    kc get pgdb,tguard,bsched,dbbackup -o 'jsonpath={range .items[*]}{.kind}/{.metadata.name}{range .status.conditions[*]}{"\n   "}{.type}={.status} {.reason}: {.message}{end}{"\n"}{end}' >&2 || true
    kubectl -n pgrail-system logs -l app.kubernetes.io/name=pgrail --tail 15 --prefix >&2 || true
  fi
}
