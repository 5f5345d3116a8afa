#!/usr/bin/env bash
# tools.sh TOOL...: makes sure of each tool (kube, helm, coredns, kubernetes, versitygw, age, gitops, manifests, cloudnative-pg) and prints
# the directory it is in.
# `kubernetes` is kube, or the version that PGRAIL_KUBERNETES names.
# tools.sh --missing TOOL...: builds nothing and prints, a line each, what has to be built and how long that takes.
# Built once per version from Go modules, kept in the cache; a second run at the same time waits for the first.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
list=
[[ ${1:-} == --missing ]] && { list=yes; shift; }

# build DIRECTORY SOURCE WHAT FUNCTION: runs the function with the directory to fill, unless an earlier run filled it.
build() {
  local source=$2 what=$3 command=$4 hash directory
  # A changed source is another entry of the cache; old entries stay until the cache is removed by hand.
  hash=$(cd "$source" && cat ./*.go go.mod | sha256sum | cut -c 1-12)
  directory=$cache/tools/$1-$hash
  if [[ -n $list ]]; then
    [[ -d $directory ]] || printf '%s\n' "$what"
    return
  fi
  mkdir -p "$cache/tools"
  exec 8>"$directory.lock"
  flock 8
  if [[ ! -d $directory ]]; then
    command -v go >/dev/null || missing "Go ($what needs it; https://go.dev/doc/install)"
    say "building $what"
    rm -rf "$directory.new"; mkdir "$directory.new"
    (cd "$source" && "$command" "$directory.new") >"$directory.log" 2>&1 8>&- ||
      { tail -n 20 "$directory.log" >&2; die "building $what failed; the whole log is $directory.log"; }
    mv "$directory.new" "$directory"
  fi
  exec 8>&-
  printf '%s\n' "$directory"
}

# go build ends with this script, even when that is killed.
go_build() { GOFLAGS= CGO_ENABLED=0 setpriv --pdeathsig TERM go build -trimpath -buildvcs=false "$@"; }

build_kubernetes() { # VERSION DIRECTORY FLAG...
  local flags="-s -w ${*:3}" package minor=${1#v1.}
  # Without these every part calls itself v0.0.0, and Helm charts refuse such a cluster.
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$1 -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
  done
  go_build -ldflags "$flags" -o "$2/kube" . && ln -s kube "$2/kubectl"
}
build_kube() {
  local minor=${default_kubernetes#v1.} package=helm.sh/helm/v4
  minor=${minor%%.*}
  # The Kubernetes that `helm template` renders for: otherwise 1.20.
  build_kubernetes "$default_kubernetes" "$1" \
    -X "$package/pkg/chart/common.k8sVersionMajor=1 -X $package/pkg/chart/common.k8sVersionMinor=$minor" \
    -X "$package/internal/version.kubeClientVersionMajor=1 -X $package/internal/version.kubeClientVersionMinor=$minor" \
    -X "$package/internal/version.version=$(required "$package" "$cluster_dir/kube")" && ln -s kube "$1/helm"
}
build_other_kubernetes() {
  mkdir "$1/module" && "$cluster_dir/kubernetes-module.sh" "$kubernetes_version" "$1/module" && cd "$1/module" &&
    build_kubernetes "$kubernetes_version" "$1" && rm -rf "$1/module"
}
build_age() { go_build -ldflags '-s -w' -o "$1/" filippo.io/age/cmd/age filippo.io/age/cmd/age-keygen; }
build_gitops() { go_build -ldflags '-s -w' -o "$1/gitops" .; }
build_manifests() { go_build -ldflags '-s -w' -o "$1/manifests" .; }
# Its manager and its plugin of kubectl, and the manifest of its release.
build_cloudnative_pg() {
  local module=github.com/cloudnative-pg/cloudnative-pg
  go_build -ldflags '-s -w' -o "$1/" "$module/cmd/manager" "$module/cmd/kubectl-cnpg" &&
    install -m 644 "$(go list -m -f '{{.Dir}}' "$module")/releases/cnpg-${cloudnative_pg_version#v}.yaml" "$1/cnpg.yaml"
}
build_versitygw() { go_build -ldflags '-s -w' -o "$1/versitygw" .; }

for tool in "$@"; do
  case $tool in
    # One program: see kube/main.go.
    kube|helm|coredns)
      build "kube-$default_kubernetes" "$cluster_dir/kube" "Kubernetes $default_kubernetes with Helm and CoreDNS: about 8 minutes" build_kube ;;
    kubernetes)
      if [[ $kubernetes_version == "$default_kubernetes" ]]; then
        exec "$0" ${list:+--missing} kube
      fi
      build "kubernetes-$kubernetes_version" "$cluster_dir/kube" "Kubernetes $kubernetes_version: about 7 minutes" build_other_kubernetes ;;
    versitygw)
      build "versitygw-$versitygw_version" "$cluster_dir/../s3/gateway" "the S3 server versitygw $versitygw_version: about 1 minute" build_versitygw ;;
    age)
      build "age-$(required filippo.io/age "$cluster_dir/../age")" "$cluster_dir/../age" "the programs of age: about 10 seconds" build_age ;;
    gitops)
      build gitops "$cluster_dir/../gitops" "the libraries of Flux and Argo CD that evaluate the state of objects: about 1 minute" build_gitops ;;
    cloudnative-pg)
      build "cloudnative-pg-$cloudnative_pg_version" "$cluster_dir/../cloudnative-pg" "CloudNativePG $cloudnative_pg_version: about 4 minutes" build_cloudnative_pg ;;
    manifests)
      build manifests "$cluster_dir/../manifests" "the types of Flux and of the Prometheus operator, which check manifests: about 1 minute" build_manifests ;;
    *) die "tools.sh: no such tool: $tool" ;;
  esac
done
