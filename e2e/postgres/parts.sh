# Sourced by the supervisor of a run (e2e/process): starts the servers and poolers that its settings name.
# shellcheck shell=bash disable=SC2154
source "$(dirname "$parts")/lib.sh"
for major in $majors; do
  keep "$major" "$postgres_dir/server.sh" "$run" "$major" "$major" on
done
keep plain "$postgres_dir/server.sh" "$run" plain "${majors##* }" off
if [[ $pooler != no ]]; then
  keep pooler-transaction "$postgres_dir/pooler.sh" "$run" transaction "${majors##* }"
  keep pooler-session "$postgres_dir/pooler.sh" "$run" session "${majors##* }"
fi
setpriv --pdeathsig KILL "$postgres_dir/setup.sh" "$run" >>"$run/log/setup.log" 2>&1 &
