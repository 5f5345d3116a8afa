#!/usr/bin/env bash
# up.sh [--node] [--name NAME] [--owner PID]: starts a throwaway Kubernetes and prints its env file (see env.sh).
#   --node    with containerd, kubelet, kube-proxy, CoreDNS and real pods (root); without it etcd, apiserver and
#             controller manager only (any user)
#   --name    several can run side by side; up with the name of one that runs prints it again. Default: default
#   --owner   ends by itself when that process ends
# PGRAIL_KUBERNETES=v1.33.13 starts another version than that of kube/go.mod. With PGRAIL_KUBECONFIG set, up.sh starts
# nothing and prints how to use that cluster. Exit code 77: this machine cannot run it.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

mode=control-plane name=default owner=
while (( $# )); do
  case $1 in
    --node) mode=node ;;
    --name) name=$2; shift ;;
    --owner) owner=$2; shift ;;
    *) die "unknown argument $1; usage: up.sh [--node] [--name NAME] [--owner PID]" ;;
  esac
  shift
done
valid_name "$name"

if [[ -n ${PGRAIL_KUBECONFIG:-} ]]; then
  say "PGRAIL_KUBECONFIG is set: using that cluster, starting none"
  exec "$cluster_dir/env.sh"
fi

"$cluster_dir/requirements.sh" "$mode"
kube=$("$cluster_dir/tools.sh" kubernetes)/kube
# Helm and CoreDNS, whatever the version of Kubernetes.
addons=$("$cluster_dir/tools.sh" kube)/kube

run=$(run_dir "$name")
if [[ $mode == node ]]; then
  # The node has a /run and a /var of its own; and the address of a Unix socket has at most 107 bytes.
  [[ $(realpath -m "$run") != @(/run|/var)/* ]] || die "the state of a node cannot be under /run or /var: set PGRAIL_STATE"
  (( ${#run} < 90 )) || die "$run is too long a path for a node's sockets: set PGRAIL_STATE"
fi
slot_taken() { # by another cluster, or by any process that has the ports or addresses
  grep -qsx "slot=$1" "$registry"/*/settings && return 0
  if [[ $mode == node ]]; then
    ip -o addr show | grep -q "inet 10\.$((200 + $1))\." || ip route show | grep -q "^10\.$((200 + $1))\."
  else
    local port
    for port in 0 1 2 3; do
      (exec 3<>"/dev/tcp/127.0.0.1/$((21000 + 10 * $1 + port))") 2>/dev/null && return 0
    done
    return 1
  fi
}

start() { # from slot $1 on; stores the slot used in $slot
  local settings
  if ! claim "$run"; then
    grep -qx "mode=$mode" "$run/settings" || die "$name runs already, but not as $mode; end it first, or set another --name"
    return 0
  fi
  slot=$1
  while slot_taken "$slot"; do
    slot=$((slot + 1))
    (( slot <= last_slot )) || die "no free slot: $last_slot clusters run, or their ports and addresses are taken"
  done
  settings=("mode=$mode" "slot=$slot" "kube=${kube@Q}" "addons=${addons@Q}" "service_cidr=10.$((200 + slot)).64.0/18")
  if [[ $mode == node ]]; then
    # One /16 per node: pods, Services, and the link to this machine.
    settings+=("subnet=10.$((200 + slot))" "address=10.$((200 + slot)).255.2" "host_address=10.$((200 + slot)).255.1"
      "pod_cidr=10.$((200 + slot)).0.0/18" "port=6443" "bind_address=0.0.0.0"
      "etcd_address=127.0.0.1" "etcd_port=2379" "controller_manager_port=10257" "apiserver_flags=()")
  else
    # A loopback address cannot be advertised, hence no endpoints for the kubernetes Service.
    settings+=("address=127.0.0.1" "bind_address=127.0.0.1" "port=$((21000 + 10 * slot))"
      "etcd_address=127.0.0.1" "etcd_port=$((21001 + 10 * slot))" "controller_manager_port=0"
      "apiserver_flags=(--endpoint-reconciler-type none)")
  fi
  launch "$run" "$cluster_dir/parts.sh" "$owner" "${settings[@]}"
  unlock_registry
}

kubectl() { KUBECACHEDIR=$run/kubectl-cache "$kube" kubectl --kubeconfig "$run/kubeconfig.d/admin" --request-timeout 5s "$@"; }
ready() {
  [[ -s $run/kubeconfig.d/admin ]] && kubectl get --raw /readyz && kubectl -n default get serviceaccount default &&
    { [[ $mode != node ]] || [[ -e $run/node-ready ]]; }
}

began=$SECONDS
slot=$first_slot
for try in 1 2 3; do
  start "$slot"
  if came_up "$run" "${PGRAIL_CLUSTER_TIMEOUT:-120}" ready; then
    say "$name is ready after $((SECONDS - began)) s: Kubernetes $kubernetes_version, ${mode/node/full node}, state in $run"
    exec "$cluster_dir/env.sh" --name "$name"
  fi
  # Another process can have taken a port between the check and its use.
  if (( try < 3 )) && { [[ -e $run/failed-link ]] || grep -qs 'address already in use' "$run"/log/*.log; }; then
    say "the ports or addresses of slot $slot were taken meanwhile: using the next"
    end_run "$run"
    slot=$((slot + 1))
    continue
  fi
  tail_logs "$run"
  mkdir -p "$registry.failed"
  rm -rf "$registry.failed/$name" && cp -r "$run/log" "$registry.failed/$name"
  end_run "$run"
  die "$name did not come up; its logs are in $registry.failed/$name"
done
