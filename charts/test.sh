#!/usr/bin/env bash
# Tests of the chart, of what is rendered from it, and of its alerts and dashboard; also on a throwaway control plane
# (test-cluster.sh).
# The last line is `N passed, N failed`. Helm and kubectl: from PATH or HELM, or built by e2e/cluster/tools.sh.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
HELM=${HELM:-$(command -v helm || printf '%s/helm' "$(e2e/cluster/tools.sh helm)")}
kubectl=$(command -v kubectl || printf '%s/kubectl' "$(e2e/cluster/tools.sh kube)")
export HELM
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# shellcheck source=../e2e/check.sh
source e2e/check.sh

chart=charts/pgrail
render() { "$HELM" template pgrail "$chart" --namespace pgrail-system "$@"; }
# Rendered once each; the tests read the files.
render >"$scratch/default"
for values in charts/testdata/*.yaml; do
  render --values "$values" >"$scratch/$(basename "$values" .yaml)"
done
# document FILE KIND NAME: one object of a rendering.
document() {
  awk -v RS='---\n' -v kind="kind: $2\n" -v name="\n  name: $3\n" 'index($0, kind) && index($0, name)' "$scratch/$1"
}
# Not grep -q: it exits before awk is done, and that counts as a failure.
holds() { document "$1" "$2" "$3" | grep -F -- "$4" >/dev/null; }
objects() { grep -c "^kind: $2\$" "$scratch/$1"; }
count_is() { [[ $(objects "$1" "$2") == "$3" ]] || { echo "$2: $(objects "$1" "$2"), expected $3"; return 1; }; }
# verbs FILE KIND NAME RESOURCE: the verbs of the rule on one resource.
verbs() {
  document "$1" "$2" "$3" | awk -v resource="$4" '
    /^ *- apiGroups:/ { of = 0 }
    /resources:/ && $0 ~ "[[ ,]" resource "[],]" { of = 1 }
    $0 ~ "^ *- " resource "$" { of = 1 }
    /verbs:/ && of { sub(/.*verbs: */, ""); print; of = 0 }'
}
verbs_are() { [[ $(verbs "$1" "$2" "$3" "$4") == "$5" ]] || { echo "$4: $(verbs "$1" "$2" "$3" "$4"), expected $5"; return 1; }; }

check "the chart has what it is made from, and kustomize's base is its rendering" charts/sync.sh --check
check "lint, default values" "$HELM" lint --strict "$chart"
for values in charts/testdata/*.yaml; do
  check "lint, $(basename "$values")" "$HELM" lint --strict "$chart" --values "$values"
done
check "a package can be made" "$HELM" package "$chart" --destination "$scratch/package"
check "a packaged chart has the CRDs" bash -c "'$HELM' template pgrail '$scratch'/package/pgrail-*.tgz | grep -q '^  name: tableguards.pgrail.dev'"

# CRDs
check "CRDs are installed" count_is default CustomResourceDefinition 7
check "CRDs are kept when the release is uninstalled" holds default CustomResourceDefinition tableguards.pgrail.dev "helm.sh/resource-policy: keep"
check "crds.keep=false: they are removed with it" not grep -q resource-policy "$scratch/minimal-rights"
check "crds.keep=false: they are installed" count_is minimal-rights CustomResourceDefinition 7
check "crds.install=false: they are not installed" count_is one-namespace CustomResourceDefinition 0
check "annotations of CRDs" holds everything CustomResourceDefinition tableguards.pgrail.dev "argocd.argoproj.io/sync-options: ServerSideApply=true"
same_schema() {
  document default CustomResourceDefinition "$1" | sed -n '/^spec:/,$p' | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}' >"$scratch/rendered"
  sed -n '/^spec:/,$p' "crds/yaml/$1.yaml" | diff - "$scratch/rendered"
}
for crd in crds/yaml/*.yaml; do
  check "the schema of $(basename "$crd" .yaml) is rendered as it is" same_schema "$(basename "$crd" .yaml)"
done

# RBAC
check "no wildcard in any rule" not grep -nE "(apiGroups|resources|verbs): *\[.*[*]|^ *- ['\"]?[*]['\"]?$" "$scratch/default"
check "Secrets: get, nothing else" verbs_are default ClusterRole pgrail-operator secrets "[get]"
check "finalizers are patched on guards" verbs_are default ClusterRole pgrail-operator tableguards "$(printf '[get, list, watch]\n[patch]')"
check "the operator can read and delete exemptions, not create them" verbs_are default ClusterRole pgrail-operator guardexemptions "$(printf '[get, list, watch]\n[patch]\n[delete]')"
check "every rule of the operator has its reason above it" bash -c "
  sed -n '/define \"pgrail.rules\"/,/end -/p' $chart/templates/_helpers.tpl | awk '/^- apiGroups/ { if (last !~ /^#/) exit 1 } { last = \$0 }'"
check "every rule for policies has its reason above it, or is of the same reason" bash -c "
  sed -n '/name: .*-policies/,/^---/p' $chart/templates/rbac.yaml | awk '/^  - apiGroups/ && last !~ /^ *(#|verbs)/ { exit 1 } { last = \$0 }'"
check "policies: other operators' clusters are only listed" verbs_are default ClusterRole pgrail-policies postgresclusters "[list, watch]"
check "policies: objects of templates are created and restored, not deleted" verbs_are default ClusterRole pgrail-policies backupschedules "[create, patch]"
check "policies: reports" verbs_are default ClusterRole pgrail-policies reports "[list, watch, create, patch, delete]"
check "policies: Secrets cannot be read" not holds default ClusterRole pgrail-policies secrets
check "one namespace: no policies" not grep -q 'name: pgrail-policies' "$scratch/one-namespace"
check "one namespace: the status of policies cannot be written" not grep -q 'guardrailpolicies/status' "$scratch/one-namespace"
check "view reads, exemptions too" verbs_are default ClusterRole pgrail-view guardexemptions "[get, list, watch]"
check "view is aggregated" holds default ClusterRole pgrail-view 'rbac.authorization.k8s.io/aggregate-to-view: "true"'
check "edit is aggregated" holds default ClusterRole pgrail-edit 'rbac.authorization.k8s.io/aggregate-to-edit: "true"'
check "edit cannot create exemptions" not holds default ClusterRole pgrail-edit guardexemptions
check "exemptions have a role of their own" verbs_are default ClusterRole pgrail-break-glass guardexemptions "[get, list, watch, create, delete]"
check "the break-glass role is not aggregated" not holds default ClusterRole pgrail-break-glass aggregate-to
check "the break-glass role is not bound" bash -c "! awk -v RS='---\n' '/RoleBinding/ && /break-glass/' '$scratch/default' | grep ."
check "rbac.aggregate=false" not grep -q aggregate-to "$scratch/one-namespace"
check "one namespace: access to its Secrets" verbs_are one-namespace Role pgrail-operator secrets "[get]"
check "one namespace: the Role is in it" holds one-namespace Role pgrail-operator "namespace: shop"
check "one namespace: no access to other Secrets" not holds one-namespace ClusterRole pgrail-operator secrets
check "one namespace: bound there" holds one-namespace RoleBinding pgrail-operator "namespace: shop"
check "one namespace: the operator knows it" holds one-namespace Deployment pgrail "PGRAIL_WATCH_NAMESPACE"
check "one namespace: it can read that Namespace" holds one-namespace ClusterRole pgrail-cluster "resourceNames: [kube-system, shop]"
check "all namespaces: the operator has no namespace set" not holds default Deployment pgrail "PGRAIL_WATCH_NAMESPACE"
check "only policies: the operator knows it" holds only-policies Deployment pgrail "PGRAIL_ONLY_POLICIES"
check "only policies: no Secrets, no Jobs, no pods" bash -c "! grep -E 'secrets|jobs|pods\]' '$scratch/only-policies'"
check "only policies: objects are only read" verbs_are only-policies ClusterRole pgrail-operator tableguards "[get, list, watch]"
check "only policies: its own Lease" holds only-policies Role pgrail-leader "resourceNames: [pgrail-policies]"
check "only policies: reports" verbs_are only-policies ClusterRole pgrail-policies reports "[list, watch, create, patch, delete]"
check "by default, the operator does more than policies" not holds default Deployment pgrail "PGRAIL_ONLY_POLICIES"
check "rbac.create=false" bash -c "! grep -qE '^kind: (Cluster)?Role' '$scratch/minimal-rights'"
check "a given service account is used" holds minimal-rights Deployment rail "serviceAccountName: prepared"
check "a given service account is not created" count_is minimal-rights ServiceAccount 0

# The pod
for line in "runAsNonRoot: true" "type: RuntimeDefault" "allowPrivilegeEscalation: false" "readOnlyRootFilesystem: true" \
  "drop: [ALL]" "image: \"ghcr.io/pgrail/pgrail:$(sed -n 's/^appVersion: "\(.*\)"/\1/p' $chart/Chart.yaml)\"" "args: [operator]" \
  "path: /healthz" "path: /readyz" "memory: 128Mi" "cpu: 20m" "fieldPath: metadata.name}"; do
  check "pod: $line" holds default Deployment pgrail "$line"
done
check "a digest takes precedence over the tag" holds minimal-rights Deployment rail "pgrail@sha256:0123456789abcdef"
images_of() { document "$1" Deployment pgrail | grep -c 'registry.example.com:5000/pgrail:1.2.3'; }
check "Jobs have the image of the operator" bash -c "[[ $(images_of everything) == 2 ]]"
check "allowed hosts in one variable" holds everything Deployment pgrail 'value: "*.rds.amazonaws.com,10.20.0.0/16"'
check "allowed stores in one variable" holds everything Deployment pgrail 'value: "s3://backups/*,https://s3.example.com:9000/backups/*"'
check "volumes are added" bash -c "grep -q 'mountPath: /etc/ssl/company' '$scratch/everything' && grep -A 3 'volumes:' '$scratch/everything' | grep -q company-ca"
for line in "runtimeClassName: gvisor" "dnsPolicy: None" "- 10.0.0.10" 'example.com/reload: "true"'; do
  check "pod: $line, if it is set" holds everything Deployment pgrail "$line"
done
for line in runtimeClassName dnsPolicy dnsConfig volumes volumeMounts topologySpreadConstraints; do
  check "pod: no $line by default" not holds default Deployment pgrail "$line"
done
check "two replicas are spread over nodes, if possible" holds only-policies Deployment pgrail "whenUnsatisfiable: ScheduleAnyway"
check "given topologySpreadConstraints replace that" bash -c "[[ \$(grep -c topologyKey '$scratch/everything') == 1 ]]"
check "a security context is added to the default one" bash -c "grep -q 'runAsUser: 1000' '$scratch/everything' && grep -q 'runAsNonRoot: true' '$scratch/everything'"
check "the version is the same in all files" release/version.sh --check

# The page
for kind in "Service pgrail-page" "Deployment pgrail"; do
  # shellcheck disable=SC2086 # words
  check "no page by default: $kind" not holds default $kind page
done
check "no page by default: tokens are not reviewed" not grep -q tokenreviews "$scratch/default"
check "page: a port of its own" holds everything Deployment pgrail "{name: page, containerPort: 8090, protocol: TCP}"
check "page: its audiences" holds everything Deployment pgrail 'value: "pgrail,dashboards"'
check "page: a Service of its own" holds everything Service pgrail-page "{name: page, port: 8443, targetPort: page, protocol: TCP}"
check "page: the Service of the metrics does not publish it" not holds everything Service pgrail "targetPort: page"
check "page: the NetworkPolicy allows its peers" holds everything NetworkPolicy pgrail "name: ingress"
check "page: tokens are reviewed" verbs_are everything ClusterRole pgrail-cluster tokenreviews "[create]"
check "page: access is reviewed" verbs_are everything ClusterRole pgrail-cluster subjectaccessreviews "[create]"

# What is off by default
check "a NetworkPolicy is on by default" count_is default NetworkPolicy 1
check "metrics can be read from the namespace monitoring" holds default NetworkPolicy pgrail "kubernetes.io/metadata.name: monitoring"
check "the NetworkPolicy can be disabled" count_is minimal-rights NetworkPolicy 0
check "other peers replace the default ones" bash -c "! grep -q 'kubernetes.io/metadata.name: monitoring' '$scratch/everything'"
check "two replicas have a PodDisruptionBudget" count_is only-policies PodDisruptionBudget 1
check "the PodDisruptionBudget can be disabled" count_is minimal-rights PodDisruptionBudget 0
check "extra objects" holds everything Secret object "of: 'pgrail'"
check "extra objects as text" grep -qx 'metadata: {name: pgrail-text}' "$scratch/everything"
check "PodMonitor is off by default" count_is default PodMonitor 0
check "PodMonitor can be enabled" count_is minimal-rights PodMonitor 1
check "PodMonitor: metrics keep their own namespace label" holds minimal-rights PodMonitor rail "honorLabels: true"
for kind in ServiceMonitor PrometheusRule PodDisruptionBudget ConfigMap; do
  check "$kind is off by default" count_is default "$kind" 0
  check "$kind can be enabled" count_is everything "$kind" 1
done
for kind in ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding; do
  check "$kind is off by default" count_is default "$kind" 0
  check "$kind can be enabled" count_is everything "$kind" 3
done
check "deletion: other users are exempt, if that is set" holds everything ValidatingAdmissionPolicy pgrail-deletion "'system:serviceaccount:shop:pgrail-shop'"
check "deletion: CRDs that Helm deletes are annotated" holds minimal-rights CustomResourceDefinition tableguards.pgrail.dev "pgrail.dev/allow-delete: \"true\""
check "deletion: kept CRDs are not annotated" not holds everything CustomResourceDefinition tableguards.pgrail.dev "pgrail.dev/allow-delete"
# shellcheck disable=SC2016
check "alerts keep their own templates" holds everything PrometheusRule pgrail '{{ $labels.namespace }}/{{ $labels.name }} is not enforced'
check "metrics keep their own namespace label" holds everything ServiceMonitor pgrail "honorLabels: true"

# Artifact Hub. `helm show chart` also checks that Chart.yaml can be read.
annotation() { "$HELM" show chart "$chart" | python3 -c '
import sys
lines, found = sys.stdin.read().split("\n"), False
for line in lines:
    if line.startswith("  artifacthub.io/"):
        found = line.strip() == sys.argv[1] + ": |"
    elif found and not line.startswith("    ") and line:
        found = False
    elif found:
        print(line[4:])' "artifacthub.io/$1"; }
hub_crds() { diff <(annotation crds | sed -n 's/^ *-* *name: //p' | sort) <(basename -s .yaml crds/yaml/*.yaml | sort); }
hub_kinds() { diff <(annotation crds | sed -n 's/^ *-* *kind: //p' | sort) <(sed -n 's/^    kind: //p' crds/yaml/*.yaml | sort); }
hub_examples() { diff <(annotation crdsExamples | sed -n 's/^ *-* *kind: //p' | sort) <(sed -n 's/^    kind: //p' crds/yaml/*.yaml | sort); }
check "Artifact Hub: every CRD" hub_crds
check "Artifact Hub: every kind" hub_kinds
check "Artifact Hub: an example of every kind" hub_examples

# Every option of `pgrail operator` that has an environment variable is set by the chart, or fixed for a container.
options_have_values() {
  local option missing=0
  while read -r option; do
    grep -rqE "name: $option\$" $chart/templates || { echo "no template sets $option"; missing=1; }
  done < <(grep -rhoE 'env = "PGRAIL_[A-Z_]+"' operator/src/operator | sed -E 's/env = "(.*)"/\1/')
  return "$missing"
}
check "every option of the operator can be set" options_have_values
# Every value is in the README of the chart.
values_are_documented() {
  local value missing=0
  while read -r value; do
    grep -qE "\`$value[\`.]" $chart/README.md || { echo "README.md does not name the value $value"; missing=1; }
  done < <(sed -nE 's/^([a-zA-Z]+):.*/\1/p' $chart/values.yaml)
  return "$missing"
}
check "every value is documented" values_are_documented

# Values that the schema must reject, naming the field.
refused() {
  local field=$1 output; shift
  if output=$(render "$@" 2>&1 >/dev/null); then echo "accepted"; return 1; fi
  grep -qF -- "$field" <<<"$output" || { echo "rejected, but without naming $field: $output"; return 1; }
}
check "rejected: a misspelt key" refused replica --set replica=2
check "rejected: a misspelt key further down" refused tags --set image.tags=1
check "rejected: a word for a number" refused replicas --set replicas=two
check "rejected: an unknown pull policy" refused pullPolicy --set image.pullPolicy=Sometimes
check "rejected: a tag that is an image" refused tag --set image.tag=pgrail:1
check "rejected: a short digest" refused digest --set image.digest=sha256:abc
check "rejected: running as root" refused runAsNonRoot --set podSecurityContext.runAsNonRoot=false
check "rejected: no service account at all" refused serviceAccount --set serviceAccount.create=false
check "rejected: a namespace with capitals" refused watchNamespace --set watchNamespace=Shop
check "rejected: a host with a blank" refused allowedHosts --set 'allowedHosts={a b}'
check "rejected: a store without a scheme" refused allowedStores --set 'allowedStores={backups}'
check "rejected: memory that is no quantity" refused memory --set resources.limits.memory=much
check "rejected: an interval without a unit" refused interval --set-string serviceMonitor.interval=30
check "rejected: an audience with a comma" refused audiences --set 'page.audiences={a\,b}'
check "rejected: only policies, of one namespace" refused watchNamespace --set onlyPolicies=true,watchNamespace=shop
check "rejected: an exempt user with a quote" refused exemptUsers --set "deletionProtection.exemptUsers={a'b}"
check "rejected: two monitors" refused podMonitor --set podMonitor.enabled=true,serviceMonitor.enabled=true
check "rejected: an unknown DNS policy" refused dnsPolicy --set dnsPolicy=Cluster
check "rejected: a port out of range" refused port --set service.port=70000

# Kustomize
kustomizes() { "$kubectl" kustomize "$1" >"$scratch/kustomized" && grep -q '^kind: Deployment' "$scratch/kustomized"; }
check "kustomize: the base" kustomizes deploy/kustomize/base
check "kustomize: the base has the CRDs" bash -c "[[ \$(grep -c '^kind: CustomResourceDefinition' '$scratch/kustomized') == 7 ]]"
check "kustomize: Helm is not named" not grep -qi helm "$scratch/kustomized"
check "kustomize: one namespace" kustomizes deploy/kustomize/overlays/namespaced
one_namespace() {
  awk -v RS='---\n' '/kind: Cluster/ && /\n  name: pgrail-operator\n/' "$scratch/kustomized" | not grep . &&
    awk -v RS='---\n' '/kind: Role\n/ && /\n  name: pgrail-operator\n/ && /\n  namespace: shop\n/' "$scratch/kustomized" | grep -q secrets
}
check "kustomize: one namespace has no access to the cluster's Secrets" one_namespace
check "kustomize: another image" kustomizes deploy/kustomize/overlays/image
another_image() { [[ $(grep -c 'registry.example.com/pgrail:' "$scratch/kustomized") == 2 ]] && ! grep 'ghcr.io' "$scratch/kustomized"; }
check "kustomize: another image, also of backup pods" another_image

# Manifests of Flux and of the Prometheus operator, by their own types.
manifests=$(e2e/cluster/tools.sh manifests)/manifests
for values in everything minimal-rights; do
  "$HELM" template pgrail "$chart" --values charts/testdata/$values.yaml --show-only templates/monitoring.yaml >"$scratch/monitoring-$values.yaml"
done
check "ServiceMonitor, PrometheusRule, PodMonitor by the types of the Prometheus operator" "$manifests" "$scratch"/monitoring-*.yaml
mapfile -t pages < <(find README.md SECURITY.md CONTRIBUTING.md charts/pgrail/README.md docs/src -name '*.md')
check "book: every YAML block is a manifest, or a part of one" python3 docs/manifests.py "$scratch/book" "${pages[@]}"
check "book: manifests of Flux, by its types" "$manifests" "$scratch"/book/other/*.yaml
sed 's/chartRef:/chartReference:/' "$scratch"/book/other/*.yaml >"$scratch/wrong.yaml"
check "book: a wrong field of a manifest of Flux is found" not "$manifests" "$scratch/wrong.yaml"
printf '```yaml\nspec: {}\n```\n' >"$scratch/page.md"
check "book: a block that is not of a known kind is found" not python3 docs/manifests.py "$scratch/other-book" "$scratch/page.md"

# Alerts and dashboard name metrics that the operator has.
names_exist() {
  local name unknown=0
  while read -r name; do
    name=${name#pgrail_}
    name=$(sed -E 's/_(total|bucket|sum|count)$//; s/_seconds$//' <<<"$name")
    grep -qF "\"$name\"" operator/src/metrics.rs || { echo "no metric pgrail_$name"; unknown=1; }
  done < <(grep -ohE 'pgrail_[a-z_]+' "$@" | sort -u)
  return "$unknown"
}
check "the alerts' metrics exist" names_exist deploy/alerts/pgrail.yaml
check "the dashboard's metrics exist" names_exist deploy/dashboards/pgrail.json
check "a metric that does not exist is found" not names_exist <(echo "pgrail_no_such_thing_total")
check "the dashboard is JSON" python3 -m json.tool deploy/dashboards/pgrail.json

source charts/test-cluster.sh

count_line
