#!/usr/bin/env bash
# node.sh RUN: process 1 of the node's own pid, mount and network namespaces: its end ends every process, mount and
# pod of the node. Starts the control plane and the node's parts, each kept running (keep.sh of e2e/process).
set -euo pipefail
source "$(dirname "$0")/lib.sh"
run=$1
# shellcheck source=/dev/null
source "$run/settings"
source "$cluster_dir/control-plane.sh"
node=node1
cgroup=/$(cgroup_of "$run")

# Kubelet, containerd and CNI have paths that no flag changes (/var/lib/kubelet, /var/log/containers, /run/containerd,
# /run/netns, /var/lib/cni): here these directories are the node's own, and the machine's are hidden.
own_directories() {
  mkdir -p "$run"/node/var/{lib/{kubelet,cni,containerd},log,tmp,cache} "$run"/node/{cni,volumes}
  ln -sfn /run "$run/node/var/run"
  mount --bind "$run/node/var" /var
  mount -t tmpfs -o mode=755 tmpfs /run
  # A sysfs that shows this network namespace, with the machine's cgroups in it.
  mkdir /run/cgroup
  mount --rbind /sys/fs/cgroup /run/cgroup
  mount -t sysfs sysfs /sys
  mount --rbind /run/cgroup /sys/fs/cgroup
  umount -R /run/cgroup
  mount --make-rshared /
  hostname "$node"
}

# cgroup v1 has a tree per controller, and a new cpuset is empty; v2 delegates controllers to children.
own_cgroup() {
  local tree file
  if [[ -f /sys/fs/cgroup/cgroup.controllers ]]; then
    mkdir -p "/sys/fs/cgroup$cgroup"
    sed 's/\w\+/+&/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control || true
    return
  fi
  for tree in /sys/fs/cgroup/*/; do
    mkdir -p "$tree$cgroup" 2>/dev/null || continue
    for file in cpuset.cpus cpuset.mems; do
      if [[ -e $tree$file ]]; then cat "$tree$file" >"$tree$cgroup/$file"; fi
    done
  done
}

write_configuration() {
  cat >"$run/node/cni/10-pod.conflist" <<C
{"cniVersion": "1.0.0", "name": "pod", "plugins": [{
  "type": "ptp", "ipMasq": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pod_cidr"}]], "routes": [{"dst": "0.0.0.0/0"}]}
}]}
C
  cat >"$run/node/containerd.toml" <<C
version = 2
root = "$run/node/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
address = "$run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "pgrail.dev/pause:1"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$run/node/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
C
  cat >"$run/node/kubelet.yaml" <<C
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $run/pki/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: $cgroup
containerRuntimeEndpoint: unix://$run/containerd.sock
clusterDNS: [$address]
clusterDomain: cluster.local
# Nothing of the machine's resolver: names inside the cluster only.
resolvConf: ""
failSwapOn: false
failCgroupV1: false
# Disk and memory are the machine's: pods are not evicted for them.
evictionHard: {nodefs.available: 100Mi, imagefs.available: 100Mi, nodefs.inodesFree: "1%", memory.available: 50Mi}
imageGCHighThresholdPercent: 100
# Answers to a changed pod at once instead of once a second.
nodeStatusUpdateFrequency: 10s
serializeImagePulls: false
maxPods: 200
C
  cat >"$run/node/proxy.yaml" <<C
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $run/kubeconfig.d/kube-proxy}
clusterCIDR: $pod_cidr
hostnameOverride: $node
nftables: {syncPeriod: 30s, minSyncPeriod: 50ms}
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
C
  cat >"$run/node/Corefile" <<C
cluster.local in-addr.arpa {
  bind $address
  errors
  kubernetes {
    kubeconfig $run/kubeconfig.d/coredns
  }
  cache 1
}
C
}

kubectl() { KUBECACHEDIR=$run/kubectl-cache "$kube" kubectl --kubeconfig "$run/kubeconfig.d/admin" "$@"; }
ctr() { command ctr --address "$run/containerd.sock" --namespace k8s.io "$@"; }
dns_answers() { (exec 3<>"/dev/tcp/$address/53"); }
fail() { touch "$run/failed-$1"; exit 1; }

trap 'say "node.sh failed in line $LINENO"; touch "$run/failed-node"' ERR
own_directories
own_cgroup
write_configuration
start_control_plane
keep containerd containerd --config "$run/node/containerd.toml" --log-level warn
until_ok 30 ctr version || fail containerd
"$cluster_dir/tiny-image.sh" pgrail.dev/pause:1 "$(command -v busybox)" tail -f /dev/null | ctr images import - >>"$run/log/node.log"
until_ok 60 kubectl get --raw /readyz || fail apiserver
kubectl apply -f "$cluster_dir/node.yaml" >>"$run/log/node.log"
keep scheduler "$kube" scheduler --kubeconfig "$run/kubeconfig.d/kube-scheduler" --leader-elect=false
keep kubelet "$kube" kubelet --config "$run/node/kubelet.yaml" --kubeconfig "$run/kubeconfig.d/node1" \
  --root-dir "$run/node/kubelet" --hostname-override "$node" --node-ip "$address"
keep proxy "$kube" proxy --config "$run/node/proxy.yaml"
keep coredns "$addons" coredns -conf "$run/node/Corefile"
keep volumes "$kube" volumes --kubeconfig "$run/kubeconfig.d/volume-provisioner" --directory "$run/node/volumes" --node "$node"
until_ok 60 kubectl get node "$node" || fail kubelet
kubectl wait --for=condition=Ready --timeout=60s "node/$node" >>"$run/log/node.log" || fail kubelet
until_ok 30 dns_answers || fail coredns
touch "$run/node-ready"
wait
