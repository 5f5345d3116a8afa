# The part of charts/test.sh that needs an API server: install, upgrade, uninstall, and RBAC. Sourced by it. A control plane
# is enough; no pod runs.
# shellcheck shell=bash disable=SC2154

cluster=chart-$(( $$ % 100000 ))
e2e/cluster/up.sh --name "$cluster" --owner $$ >"$scratch/up.log" 2>&1 || { cat "$scratch/up.log"; exit 1; }
trap 'e2e/cluster/down.sh --name "$cluster" >/dev/null 2>&1; rm -rf "$scratch"' EXIT
eval "$(e2e/cluster/env.sh --name "$cluster")"

helm() { "$HELM" "$@"; }
k() { "$kubectl" "$@"; }
exists() { k get "$@" >/dev/null; }
absent() { ! k get "$@" >/dev/null 2>&1; }
can() { # USER NAMESPACE VERB RESOURCE
  [[ $(k auth can-i "$3" "$4" --as "$1" --namespace "$2" 2>/dev/null) == yes ]]
}
operator=system:serviceaccount:pgrail-system:pgrail
wait_until() { local end=$((SECONDS + 30)); until "$@" 2>/dev/null; do (( SECONDS < end )) || return 1; sleep 0.2; done; }

k create namespace shop >/dev/null
k create namespace other >/dev/null
install() { helm upgrade --install pgrail "$chart" --namespace pgrail-system --create-namespace "$@"; }
check "cluster: install" install
k wait --for=condition=Established crd/tableguards.pgrail.dev --timeout=30s >/dev/null
for example in examples/*.yaml examples/friday/*.yaml; do
  check "cluster: accepts $example" k apply --dry-run=server --namespace shop --filename "$example"
done
check "cluster: a guard and its database" k apply --namespace shop --filename examples/minimal.yaml

check "cluster: the operator can get a Secret by name" can $operator shop get secrets
check "cluster: the operator cannot list Secrets" not can $operator shop list secrets
check "cluster: the operator can write a status" can $operator shop patch tableguards/status
check "cluster: the operator cannot create an exemption" not can $operator shop create guardexemptions
check "cluster: the operator can create CronJobs" can $operator shop create cronjobs
check "cluster: the operator cannot exec into a pod" not can $operator shop create pods/exec
check "cluster: the operator can update its Lease" can $operator pgrail-system update leases/pgrail-operator
check "cluster: the operator cannot update another Lease" not can $operator pgrail-system update leases/other

k create rolebinding editor --clusterrole edit --user editor --namespace shop >/dev/null
k create rolebinding viewer --clusterrole view --user viewer --namespace shop >/dev/null
k create rolebinding breaker --clusterrole pgrail-break-glass --user breaker --namespace shop >/dev/null
check "cluster: edit can create guards" wait_until can editor shop create tableguards
check "cluster: edit cannot create exemptions" not can editor shop create guardexemptions
check "cluster: edit can read exemptions" can editor shop get guardexemptions
check "cluster: view can read" wait_until can viewer shop get tableguards
check "cluster: view cannot write" not can viewer shop update tableguards
check "cluster: break-glass can create exemptions" can breaker shop create guardexemptions
check "cluster: break-glass cannot change guards" not can breaker shop update tableguards

check "cluster: scale" k scale deployment pgrail --namespace pgrail-system --replicas=3
check "cluster: upgrade after kubectl scale" install --set logLevel=debug
scaled() { [[ $(k get deployment pgrail --namespace pgrail-system --output jsonpath='{.spec.replicas}') == 3 ]]; }
check "cluster: the number of replicas remains" scaled
check "cluster: upgrade" install --set podLabels.upgraded=yes
# The user who creates an exemption is recorded, if that is enabled.
check "cluster: the requester of an exemption is recorded, on request" install --set exemptionRequester.enabled=true
exemption() { # NAME REQUESTER
  sed -e "s/name: purge-2026-11/name: $1/" -e "s/requested-by: .*/requested-by: $2/" examples/exemption.yaml |
    k create --as breaker --namespace shop --filename - 2>&1
}
# A policy takes a moment to come into force.
not_accepted() { exemption "$1" "$2" >"$scratch/exemption"; grep -q 'pgrail.dev/requested-by: breaker' "$scratch/exemption"; }
rejected_in_other_name() { not_accepted "another-$RANDOM$RANDOM" another; }
check "cluster: an exemption in the name of another user is rejected" wait_until rejected_in_other_name
check "cluster: an exemption in the user's own name is accepted" exemption own breaker
cannot_change() {
  local answer
  ! answer=$(k annotate --overwrite --as system:admin --as-group system:masters --namespace shop guardexemption/own \
    pgrail.dev/requested-by=another 2>&1) && grep -q "cannot be changed" <<<"$answer"
}
check "cluster: the record cannot be changed" cannot_change
k delete guardexemption --all --namespace shop >/dev/null
# What the operator can do with its Jobs is limited, if that is enabled.
check "cluster: the Jobs of the operator can be limited" install --set jobPolicy.enabled=true --set image.tag=v1
image=$(k get deployment pgrail --namespace pgrail-system --output jsonpath='{.spec.template.spec.containers[0].image}')
job() { # NAME NAMESPACE FILTER-OF-THE-POD [IMAGE] [COMMAND-OF-KUBECTL]
  jq -n --arg name "$1" --arg image "${4:-$image}" '{apiVersion: "batch/v1", kind: "Job", metadata: {name: $name}, spec: {template: {spec: ({
    restartPolicy: "Never", automountServiceAccountToken: false, volumes: [{name: "work", emptyDir: {}}],
    containers: [{name: "dump", image: $image, args: ["agent", "dump"], securityContext: {privileged: false}}]} | '"$3"')}}}' |
    k "${5:-create}" --as $operator --namespace "$2" --filename - 2>&1
}
job_is_rejected() { # MESSAGE JOB-ARGUMENTS...
  local message=$1 answer; shift
  ! answer=$(job "$@") && grep -qF -- "$message" <<<"$answer" || { echo "$answer"; return 1; }
}
privileged_is_rejected() { job_is_rejected "must not be privileged" "p-$RANDOM$RANDOM" shop '.containers[0].securityContext.privileged = true'; }
check "cluster: a privileged Job is rejected" wait_until privileged_is_rejected
check "cluster: a Job with the host's network is rejected" job_is_rejected "must not be privileged" j shop '.hostNetwork = true'
check "cluster: a Job with another image is rejected" job_is_rejected "must use the image" j shop . busybox
check "cluster: a Job with another program is rejected" job_is_rejected "must run the agent" j shop '.containers[0].command = ["sh"]'
check "cluster: an init container is checked too" job_is_rejected "must run the agent" j shop '.initContainers = [.containers[0] | .name = "init" | .args = ["sh"]]'
check "cluster: a Job with a token is rejected" job_is_rejected "API token" j shop 'del(.automountServiceAccountToken)'
check "cluster: a projected token is rejected" job_is_rejected "only volumes" j shop '.volumes[0] = {name: "t", projected: {sources: [{serviceAccountToken: {path: "t"}}]}}'
check "cluster: a Job in kube-system is rejected" job_is_rejected "namespace kube-system" j kube-system .
check "cluster: a Job in the operator's namespace is rejected" job_is_rejected "namespace pgrail-system" j pgrail-system .
check "cluster: a Job of pgrail is accepted" job own shop .
cron_job() { # IMAGE
  k create cronjob "c-$RANDOM" --schedule '0 0 * * *' --image "$1" --as $operator --namespace shop --dry-run=server 2>&1
}
cron_job_is_rejected() { ! cron_job busybox >"$scratch/cronjob" && grep -qF "must use the image" "$scratch/cronjob"; }
check "cluster: CronJobs are checked too" cron_job_is_rejected
check "cluster: upgrade to another image" install --set jobPolicy.enabled=true --set image.tag=v2
old_job_is_rejected() { job_is_rejected "must use the image" "o-$RANDOM$RANDOM" shop .; }
check "cluster: the image of before is rejected" wait_until old_job_is_rejected
check "cluster: a Job of before can be annotated" k annotate job own recorded=yes --as $operator --namespace shop
k delete job own --namespace shop >/dev/null
check "cluster: uninstall" helm uninstall pgrail --namespace pgrail-system
check "cluster: objects are kept after uninstall" exists tableguard core --namespace shop
check "cluster: the Deployment is removed" absent deployment pgrail --namespace pgrail-system
check "cluster: install again, with the CRDs of before" install --set watchNamespace=shop
check "cluster: one namespace: access to its Secrets" can $operator shop get secrets
check "cluster: one namespace: no access to other Secrets" not can $operator other get secrets
check "cluster: uninstall with everything" bash -c "'$HELM' upgrade pgrail $chart --namespace pgrail-system --set crds.keep=false && '$HELM' uninstall pgrail --namespace pgrail-system"
check "cluster: then the CRDs are removed" wait_until absent crd tableguards.pgrail.dev backupschedules.pgrail.dev

no_crds() { [[ -z $(k get crd --output name) ]]; }
wait_until no_crds
check "cluster: kustomize" k apply --server-side --kustomize deploy/kustomize/base
k delete --kustomize deploy/kustomize/base >/dev/null 2>&1
wait_until no_crds
check "cluster: kustomize, one namespace" k apply --server-side --kustomize deploy/kustomize/overlays/namespaced
check "cluster: kustomize, one namespace: access to its Secrets" can $operator shop get secrets
check "cluster: kustomize, one namespace: no access to other Secrets" not can $operator other get secrets
