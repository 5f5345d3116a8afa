#!/usr/bin/env bash
# record.sh DIRECTORY COMMAND...: runs the command, and meanwhile writes each state of each object of pgrail in the cluster of
# KUBECONFIG to files in DIRECTORY, one for each kind, as watch events. The exit status is the command's.
set -uo pipefail
directory=$1; shift
kinds=(protecteddatabases tableguards guardexemptions backupschedules databasebackups databaserestores guardrailpolicies)
rm -rf "$directory"; mkdir -p "$directory"
watch() { # KIND: again whenever the watch ends, as it does while the CRDs are not there
  while :; do
    kubectl get "$1.pgrail.dev" --all-namespaces --watch --output-watch-events --output json >>"$directory/$1" 2>/dev/null
    sleep 0.5
  done
}
pids=()
for kind in "${kinds[@]}"; do
  setpriv --pdeathsig KILL bash -c "directory='$directory'; $(declare -f watch); watch $kind" &
  pids+=($!)
done
"$@"
status=$?
sleep 1
for pid in "${pids[@]}"; do pkill -KILL -P "$pid"; kill -KILL "$pid"; done 2>/dev/null
wait "${pids[@]}" 2>/dev/null
exit "$status"
