# Sourced by the supervisor of a run (e2e/process): the control plane, or the node with its namespaces.
# shellcheck shell=bash disable=SC2154
source "$(dirname "$parts")/lib.sh"
if [[ $mode == node ]]; then
  setpriv --pdeathsig KILL unshare --net "$cluster_dir/node-network.sh" "$run" "$$" >>"$run/log/node.log" 2>&1 &
else
  source "$cluster_dir/control-plane.sh"
  start_control_plane
fi
