#!/usr/bin/env bash
# env.sh [--name NAME]: prints, for a shell's eval or for a file of NAME='value' lines, how to use a running cluster:
#   KUBECONFIG KUBECACHEDIR PATH HELM PGRAIL_CLUSTER PGRAIL_CLUSTER_MODE PGRAIL_CLUSTER_STATE, and of a full node
#   PGRAIL_CLUSTER_ADDRESS (its own address) PGRAIL_CLUSTER_HOST (this machine, as pods reach it)
set -euo pipefail
source "$(dirname "$0")/lib.sh"
name=default
[[ ${1:-} == --name ]] && name=$2

print() { printf "export %s='%s'\n" "$1" "${2//\'/\'\\\'\'}"; }
if [[ -n ${PGRAIL_KUBECONFIG:-} ]]; then
  print KUBECONFIG "$PGRAIL_KUBECONFIG"
  command -v kubectl >/dev/null || printf "export PATH='%s':\"\$PATH\"\n" "$("$cluster_dir/tools.sh" kube)"
  print HELM "$(command -v helm || printf '%s/helm' "$("$cluster_dir/tools.sh" helm)")"
  print PGRAIL_CLUSTER_MODE given
  exit 0
fi
run=$(run_dir "$name")
lives "$run" || die "no cluster named $name runs; start it with up.sh"
# shellcheck source=/dev/null
source "$run/settings"
print KUBECONFIG "$run/kubeconfig.d/admin"
printf "export PATH='%s':\"\$PATH\"\n" "$(dirname "$kube")"
print HELM "$(dirname "$addons")/helm"
# Other clusters use the same address at other times: kubectl's cache of theirs must not be used here.
print KUBECACHEDIR "$run/kubectl-cache"
print PGRAIL_CLUSTER "$name"
print PGRAIL_CLUSTER_MODE "$mode"
# Not PGRAIL_PART_OF: what carries that name is part of the run and ends with it.
print PGRAIL_CLUSTER_STATE "$run"
if [[ $mode == node ]]; then
  print PGRAIL_CLUSTER_ADDRESS "$address"
  print PGRAIL_CLUSTER_HOST "$host_address"
fi
