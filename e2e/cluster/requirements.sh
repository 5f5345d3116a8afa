#!/usr/bin/env bash
# requirements.sh control-plane|node|image: makes sure that this machine has what that needs, installing Debian
# packages as root. What it cannot install it reports, with exit code 77.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

[[ $(uname -s) == Linux ]] || missing "Linux"
case $1 in
  control-plane|node|image) ;;
  *) die "usage: requirements.sh control-plane|node|image" ;;
esac

# One "command package" a line.
needs='openssl openssl
setpriv util-linux
flock util-linux'
if [[ $1 == node ]]; then
  [[ $(id -u) == 0 ]] || missing "root (a node with real pods needs it; the control plane alone does not)"
  needs+='
containerd containerd
runc runc
/usr/lib/cni/ptp containernetworking-plugins
iptables iptables
nft nftables
ip iproute2
busybox busybox-static'
fi
if [[ $1 == image ]]; then
  [[ $(id -u) == 0 ]] || missing "root (building the image without Docker needs it)"
  needs+='
mmdebstrap mmdebstrap
buildah buildah
/usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring'
fi

lacking=()
while read -r file package; do
  # Debian keeps administrators' commands out of other users' PATH.
  PATH=$PATH:/usr/sbin:/sbin command -v "$file" >/dev/null || [[ -e $file ]] || lacking+=("$package")
done <<<"$needs"
# Debian's containerd package starts a service where there is a systemd; nothing here uses it.
install_packages "${lacking[@]}"

[[ $1 == node ]] || exit 0
grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || missing "the kernel's overlay file system"
unshare --mount --pid --net --fork --mount-proc true 2>/dev/null || missing "the right to make mount, pid and network namespaces"
unshare --net sh -c 'ip link add probe0 type veth peer name probe1 && nft add table ip probe && iptables -t nat -L -n' >/dev/null 2>&1 ||
  missing "veth links, nftables or iptables in the kernel"
