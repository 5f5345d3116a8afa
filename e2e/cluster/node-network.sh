#!/usr/bin/env bash
# node-network.sh RUN SUPERVISOR: runs in the node's own network namespace. Lays the one link between it and this
# machine, then becomes the node. The link, and all that the node does to its own nftables, ends with the namespace.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
run=$1 supervisor=$2
# shellcheck source=/dev/null
source "$run/settings"

# The name is the claim: the kernel gives it to one run only.
link=pgrail$slot
on_host() { nsenter --target "$supervisor" --net "$@"; }
ip link add eth0 type veth peer name "$link" netns "$supervisor" || { touch "$run/failed-link"; exit 1; }
on_host ip addr add "$host_address/30" dev "$link"
on_host ip link set "$link" up
# So that this machine reaches pods and Services by their addresses.
on_host ip route add "$subnet.0.0/17" via "$address" dev "$link"
ip addr add "$address/30" dev eth0
ip link set eth0 up
ip link set lo up
ip route add default via "$host_address"
echo 1 >/proc/sys/net/ipv4/ip_forward

exec unshare --mount --pid --ipc --uts --fork --kill-child=KILL --mount-proc "$cluster_dir/node.sh" "$run"
