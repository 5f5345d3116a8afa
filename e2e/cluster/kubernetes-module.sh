#!/usr/bin/env bash
# kubernetes-module.sh VERSION DIRECTORY: writes a Go module that builds another version of Kubernetes, such as v1.33.13,
# from the sources in kube/. Without Helm and CoreDNS, which need client libraries of one version each.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
version=$1 directory=$2
upstream=$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/^\t"GoMod": "\(.*\)",*$/\1/p')
[[ -n $upstream ]] || die "there is no Kubernetes $version"
cp "$cluster_dir"/kube/{main,volumes}.go "$directory/"
{
  printf 'module pgrail.dev/e2e/cluster/kube\n\ngo 1.24.0\n\nrequire k8s.io/kubernetes %s\n' "$version"
  # The etcd that this version's own API server is compiled with.
  awk '$1 == "go.etcd.io/etcd/client/v3" { print "require go.etcd.io/etcd/server/v3", $2 }' "$upstream"
  # Kubernetes' own libraries stand in its repository and have no version there.
  echo "replace ("
  grep -oE 'k8s\.io/[a-z0-9-]+ => \./staging' "$upstream" | awk -v version="v0.${version#v1.}" '{ print "\t" $1 " => " $1 " " version }'
  echo ")"
} >"$directory/go.mod"
(cd "$directory" && go mod tidy)
