#!/usr/bin/env bash
# tools.sh TOOL...: makes sure of each tool (kube, helm, coredns, versitygw) and prints the folder it is in.
# Built once per version from Go modules, kept in the cache; a second run at the same time waits for the first.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

# build FOLDER MESSAGE FUNCTION...: runs the function with the folder to fill, unless an earlier run filled it.
build() {
  local folder=$cache/tools/$1 message=$2; shift 2
  mkdir -p "$cache/tools"
  exec 8>"$folder.lock"
  flock 8
  if [[ ! -d $folder ]]; then
    command -v go >/dev/null || missing "Go ($message needs it; https://go.dev/doc/install)"
    say "building $message"
    rm -rf "$folder.new"; mkdir "$folder.new"
    "$@" "$folder.new" >"$folder.log" 2>&1 8>&- || { tail -n 20 "$folder.log" >&2; die "building $message failed; all of it in $folder.log"; }
    mv "$folder.new" "$folder"
  fi
  exec 8>&-
  printf '%s\n' "$folder"
}

build_kube() {
  local flags='-s -w' package minor=${kubernetes_version#v1.}
  # Without these every part calls itself v0.0.0, and Helm charts refuse such a cluster.
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$kubernetes_version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
  done
  (cd "$cluster_dir/kube" && GOFLAGS= CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "$flags" -o "$1/kube" .)
  ln -s kube "$1/kubectl"
}

install_module() { GOFLAGS= CGO_ENABLED=0 GOBIN=$2 go install -trimpath -ldflags '-s -w' "$1"; }

for tool in "$@"; do
  case $tool in
    kube)
      source_hash=$(cd "$cluster_dir/kube" && cat ./*.go go.mod | sha256sum | cut -c 1-12)
      build "kube-$kubernetes_version-$source_hash" "Kubernetes $kubernetes_version, about 7 minutes the first time" build_kube ;;
    helm)
      build "helm-$HELM_VERSION" "helm $HELM_VERSION, about 3 minutes the first time" install_module "helm.sh/helm/v4/cmd/helm@$HELM_VERSION" ;;
    coredns)
      build "coredns-$COREDNS_VERSION" "CoreDNS $COREDNS_VERSION, about 3 minutes the first time" install_module "github.com/coredns/coredns@$COREDNS_VERSION" ;;
    versitygw)
      build "versitygw-$VERSITYGW_VERSION" "the S3 server versitygw $VERSITYGW_VERSION, about 2 minutes the first time" \
        install_module "github.com/versity/versitygw/cmd/versitygw@$VERSITYGW_VERSION" ;;
    *) die "tools.sh: no such tool: $tool" ;;
  esac
done
