#!/usr/bin/env bash
# up.sh [--name CLUSTER] [--postgresql MAJOR] NAMESPACE postgres|s3...: makes the namespace (Pod Security: restricted), the Secrets with
# fresh random passwords, loads the images, applies the manifests, and waits until all of it answers.
# What exists already is kept: Secrets are not changed, and data stays.
set -euo pipefail
# shellcheck source=../lib.sh
source "$(dirname "$0")/../lib.sh"
name=default major=18
while [[ ${1:-} == --* ]]; do
  case $1 in
    --name) name=$2 ;;
    --postgresql) major=$2 ;;
    *) die "unknown argument $1; usage: up.sh [--name CLUSTER] [--postgresql 15|18] NAMESPACE postgres|s3..." ;;
  esac
  shift 2
done
namespace=$1
shift

eval "$("$cluster_dir/env.sh" --name "$name")"
[[ -n ${KUBECONFIG:-} ]] || exit 1
kubectl() { command kubectl --namespace "$namespace" "$@"; }
exists() { kubectl get "$@" >/dev/null 2>&1; }

exists namespace "$namespace" || kubectl create namespace "$namespace" >&2
kubectl label namespace "$namespace" --overwrite pod-security.kubernetes.io/enforce=restricted >/dev/null

postgres() {
  "$cluster_dir/image.sh" --postgresql "$major" --name "$name" >/dev/null
  local host=postgres.$namespace.svc password
  if ! exists secret postgres-superuser; then
    password=$(openssl rand -hex 16)
    # The keys that operators of PostgreSQL give their Secrets.
    kubectl create secret generic postgres-superuser --from-literal=host="$host" --from-literal=port=5432 --from-literal=dbname=postgres \
      --from-literal=username=postgres --from-literal=password="$password" \
      --from-literal=uri="postgres://postgres:$password@$host:5432/postgres" >&2
  fi
  if ! exists secret postgres-tls; then
    local work; work=$(mktemp -d)
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj "/CN=$host" \
      -addext "subjectAltName=DNS:postgres,DNS:$host,DNS:$host.cluster.local" -keyout "$work/key" -out "$work/crt" 2>/dev/null
    kubectl create secret generic postgres-tls --from-file=tls.crt="$work/crt" --from-file=tls.key="$work/key" --from-file=ca.crt="$work/crt" >&2
    rm -rf "$work"
  fi
  sed "s|pgrail.dev/postgresql:18|pgrail.dev/postgresql:$major|" "$cluster_dir/workloads/postgres.yaml" | kubectl apply -f - >&2
}

s3() {
  local archive program
  program=$("$cluster_dir/tools.sh" versitygw)/versitygw
  archive=$(mktemp)
  "$cluster_dir/tiny-image.sh" --add mkdir="$(command -v busybox)" "pgrail.dev/versitygw:$versitygw_version" "$program" >"$archive"
  "$cluster_dir/load.sh" --name "$name" "$archive"
  rm "$archive"
  exists secret s3 || kubectl create secret generic s3 --from-literal=AWS_ACCESS_KEY_ID="$(openssl rand -hex 10)" \
    --from-literal=AWS_SECRET_ACCESS_KEY="$(openssl rand -hex 20)" >&2
  sed "s|pgrail.dev/versitygw:[^ ]*|pgrail.dev/versitygw:$versitygw_version|" "$cluster_dir/workloads/s3.yaml" | kubectl apply -f - >&2
}

for workload in "$@"; do
  case $workload in
    postgres|s3) "$workload" ;;
    *) die "no such workload: $workload" ;;
  esac
done
for workload in "$@"; do
  kind=deployment
  [[ $workload == postgres ]] && kind=statefulset
  if ! kubectl rollout status "$kind/$workload" --timeout 120s >&2; then
    kubectl get pods,pvc >&2 || true
    kubectl describe pods --selector "app=$workload" >&2 || true
    kubectl logs --selector "app=$workload" --all-containers --tail 20 >&2 || true
    die "$workload does not come up in $namespace"
  fi
done
