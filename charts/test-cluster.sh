# The part of charts/test.sh that needs an API server: install, upgrade, uninstall, RBAC, admission policies, and the examples of
# the repository and the book. Sourced by it. A control plane is enough; no pod runs.
# shellcheck shell=bash disable=SC2154

cluster=chart-$(( $$ % 100000 ))
e2e/cluster/up.sh --name "$cluster" --owner $$ >"$scratch/up.log" 2>&1 || { cat "$scratch/up.log"; exit 1; }
trap 'e2e/cluster/down.sh --name "$cluster" >/dev/null 2>&1; rm -rf "$scratch"' EXIT
eval "$(e2e/cluster/env.sh --name "$cluster")"

helm() { "$HELM" "$@"; }
k() { "$kubectl" "$@"; }
exists() { k get "$@" >/dev/null; }
absent() { ! k get "$@" >/dev/null 2>&1; }
can() { # USER NAMESPACE VERB RESOURCE[/NAME] [--subresource=…]
  [[ $(k auth can-i "$3" "$4" "${@:5}" --as "$1" --namespace "$2" 2>/dev/null) == yes ]]
}
operator=system:serviceaccount:pgrail-system:pgrail
wait_until() { local end=$((SECONDS + 90)); until "$@" 2>/dev/null; do (( SECONDS < end )) || return 1; sleep 0.2; done; }

k create namespace shop >/dev/null
k create namespace other >/dev/null
install() { helm upgrade --install pgrail "$chart" --namespace pgrail-system --create-namespace "$@"; }
check "cluster: install" install
k wait --for=condition=Established crd/tableguards.pgrail.dev --timeout=30s >/dev/null
for example in examples/*.yaml examples/friday/*.yaml; do
  check "cluster: accepts $example" k apply --dry-run=server --namespace shop --filename "$example"
done
# The YAML blocks of the book.
part_is_accepted() { # FILE: merged into a manifest of its kind
  k patch --local --filename "${1%.yaml}.json" --type merge --patch-file "$1" --output json >"$scratch/part.json"
  k apply --dry-run=server --validate=strict --namespace shop --filename "$scratch/part.json"
}
for file in "$scratch"/book/apply/*.yaml; do
  check "book: accepts $(basename "$file" .yaml)" k apply --dry-run=server --validate=strict --namespace shop --filename "$file"
done
for file in "$scratch"/book/part/*.yaml; do check "book: accepts $(basename "$file" .yaml)" part_is_accepted "$file"; done
for file in "$scratch"/book/values/*.yaml; do check "book: accepts $(basename "$file" .yaml)" render --values "$file"; done
{ printf 'apiVersion: v1\nkind: List\nitems:\n'; annotation crdsExamples; } >"$scratch/hub.yaml"
check "cluster: accepts the examples for Artifact Hub" k apply --dry-run=server --validate=strict --namespace shop --filename "$scratch/hub.yaml"
# A Secret has at most 1 MiB. Helm keeps the chart and what it rendered in one.
release_is_small() {
  local size
  size=$(k get secret sh.helm.release.v1.pgrail.v1 --namespace pgrail-system --output jsonpath='{.data.release}' | wc -c)
  echo "$size bytes"
  (( size < 700000 ))
}
check "cluster: the release fits into its Secret" release_is_small
k label namespace pgrail-system pod-security.kubernetes.io/enforce=restricted >/dev/null
pod_is_admitted() { # JQ-FILTER of the pod
  k get deployment pgrail --namespace pgrail-system --output json |
    jq '.spec.template | .apiVersion = "v1" | .kind = "Pod" | .metadata.name = "trial" | '"$1" | k create --dry-run=server --namespace pgrail-system --filename -
}
check "cluster: the pod meets the restricted Pod Security Standard" pod_is_admitted .
check "cluster: another pod would not" not pod_is_admitted '.spec.securityContext.runAsNonRoot = false'
# All other objects and fields that values can add. The kinds of the Prometheus operator do not exist here.
everything() {
  helm template everything "$chart" --namespace pgrail-system --values charts/testdata/everything.yaml \
    --set crds.install=false,serviceMonitor.enabled=false,prometheusRule.enabled=false |
    k apply --server-side --dry-run=server --validate=strict --namespace pgrail-system --filename -
}
check "cluster: all values together" everything
check "cluster: a guard and its database" k apply --namespace shop --filename examples/minimal.yaml

check "cluster: the operator can get a Secret by name" can $operator shop get secrets
check "cluster: the operator cannot list Secrets" not can $operator shop list secrets
check "cluster: the operator can write a status" can $operator shop patch tableguards --subresource=status
check "cluster: the operator cannot create an exemption" not can $operator shop create guardexemptions
check "cluster: the operator can create CronJobs" can $operator shop create cronjobs
check "cluster: the operator cannot exec into a pod" not can $operator shop create pods --subresource=exec
check "cluster: the operator can update its Lease" can $operator pgrail-system update leases/pgrail-operator
check "cluster: the operator cannot update another Lease" not can $operator pgrail-system update leases/other

k create rolebinding editor --clusterrole edit --user editor --namespace shop >/dev/null
k create rolebinding viewer --clusterrole view --user viewer --namespace shop >/dev/null
k create rolebinding breaker --clusterrole pgrail-break-glass --user breaker --namespace shop >/dev/null
check "cluster: edit can create guards" wait_until can editor shop create tableguards
check "cluster: edit cannot create exemptions" not can editor shop create guardexemptions
check "cluster: edit can read exemptions" can editor shop get guardexemptions
k create rolebinding administrator --clusterrole admin --user administrator --namespace shop >/dev/null
# One question for all kinds: as what a user is told by `kubectl auth can-i --list`.
can_all() { # USER NAMESPACE VERB KIND...
  local user=$1 namespace=$2 verb=$3 kind list; shift 3
  list=$(k auth can-i --list --as "$user" --namespace "$namespace" 2>/dev/null)
  for kind in "$@"; do
    grep -qE "^$kind\.pgrail\.dev .*[[ ]$verb[] ]" <<<"$list" || { echo "$user cannot $verb $kind"; return 1; }
  done
}
others=(protecteddatabases tableguards backupschedules databasebackups databaserestores)
check "cluster: edit can write the other kinds" can_all editor shop delete "${others[@]}"
check "cluster: admin can write the other kinds" can_all administrator shop create "${others[@]}"
check "cluster: admin cannot create exemptions" not can administrator shop create guardexemptions
check "cluster: edit cannot write a status" not can editor shop patch tableguards --subresource=status
check "cluster: edit has no permission in other namespaces" not can editor other create tableguards
check "cluster: view can read" wait_until can viewer shop get tableguards
check "cluster: view can read the other kinds" can_all viewer shop list "${others[@]}" guardexemptions guardrailpolicies
check "cluster: view cannot write" not can viewer shop update tableguards
check "cluster: break-glass can create exemptions" can breaker shop create guardexemptions
check "cluster: break-glass cannot change guards" not can breaker shop update tableguards

check "cluster: scale" k scale deployment pgrail --namespace pgrail-system --replicas=3
check "cluster: upgrade after kubectl scale" install --set logLevel=debug
scaled() { [[ $(k get deployment pgrail --namespace pgrail-system --output jsonpath='{.spec.replicas}') == 3 ]]; }
check "cluster: the number of replicas remains" scaled
check "cluster: upgrade" install --set podLabels.upgraded=yes
# The user who creates an exemption is recorded, if that is enabled.
check "cluster: the requester of an exemption is recorded, and deletions are refused, on request" install \
  --set exemptionRequester.enabled=true,deletionProtection.enabled=true --set 'deletionProtection.exemptUsers={janitor}'
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
# Deletions are refused without an annotation, if that is enabled.
k create clusterrolebinding janitor --clusterrole cluster-admin --user janitor >/dev/null
k apply --namespace shop --filename examples/s3-backup.yaml --filename examples/backup-now.yaml >/dev/null
k apply --filename examples/policy.yaml >/dev/null
deletion_is_refused() { # KUBECTL-ARGUMENTS...
  local answer
  ! answer=$(k delete --wait=false "$@" 2>&1) && grep -qF 'must have the annotation pgrail.dev/allow-delete: "true"' <<<"$answer" || { echo "$answer"; return 1; }
}
check "cluster: the deletion of a guard is refused" wait_until deletion_is_refused tableguard core --namespace shop
for object in protecteddatabase/shop backupschedule/nightly databasebackup/before-migration-42; do
  check "cluster: the deletion of $object is refused" deletion_is_refused "$object" --namespace shop
done
check "cluster: the deletion of a policy is refused" deletion_is_refused guardrailpolicy production
check "cluster: the deletion of a CRD is refused" deletion_is_refused crd tableguards.pgrail.dev
check "cluster: the deletion of all guards together is refused" deletion_is_refused --raw /apis/pgrail.dev/v1alpha1/namespaces/shop/tableguards
check "cluster: the operator's own deletions are allowed" k delete databasebackup before-migration-42 --namespace shop --dry-run=server --as $operator
check "cluster: those of an exempt user are allowed" k delete tableguard core --namespace shop --dry-run=server --as janitor
k annotate tableguard core --namespace shop pgrail.dev/allow-delete=yes >/dev/null
check "cluster: another value of the annotation does not allow it" deletion_is_refused tableguard core --namespace shop
k annotate --overwrite tableguard core --namespace shop pgrail.dev/allow-delete=true >/dev/null
check "cluster: with the annotation, it is allowed" k delete tableguard core --namespace shop
exemption purge breaker >/dev/null
check "cluster: an exemption can be revoked without" k delete guardexemption --all --namespace shop
sed -e 's/^/  /' -e '1i apiVersion: v1\nkind: List\nitems:' -e '0,/^  /s//- /' <<<'apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  names: {kind: Thing, plural: things}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]' | k apply --filename - >/dev/null
check "cluster: CRDs of others are not protected" k delete crd things.example.com
k create namespace ended >/dev/null
k apply --namespace ended --filename examples/minimal.yaml >/dev/null
check "cluster: a namespace with protected objects can be deleted" k delete namespace ended --timeout=60s
k apply --namespace shop --filename examples/minimal.yaml >/dev/null
check "cluster: a deletion that waits for a finalizer can be repeated" bash -c "
  '$kubectl' patch tableguard core -n shop --type merge -p '{\"metadata\":{\"finalizers\":[\"pgrail.dev/cleanup\"],\"annotations\":{\"pgrail.dev/allow-delete\":\"true\"}}}' &&
  '$kubectl' delete tableguard core -n shop --wait=false &&
  '$kubectl' annotate tableguard core -n shop pgrail.dev/allow-delete- &&
  '$kubectl' delete tableguard core -n shop --wait=false &&
  '$kubectl' patch tableguard core -n shop --type merge -p '{\"metadata\":{\"finalizers\":null}}'"
k apply --namespace shop --filename examples/minimal.yaml >/dev/null
check "cluster: protection of one namespace" install --set deletionProtection.enabled=true --set watchNamespace=other
guard_of_shop_can_be_deleted() { k delete tableguard core --namespace shop --dry-run=server; }
check "cluster: another namespace is not protected" wait_until guard_of_shop_can_be_deleted
check "cluster: the CRDs still are" deletion_is_refused crd tableguards.pgrail.dev
# What the operator can do with its Jobs is limited, if that is enabled.
check "cluster: the Jobs of the operator can be limited" install --set jobPolicy.enabled=true --set image.tag=v1
crd_can_be_deleted() { k delete crd tableguards.pgrail.dev --dry-run=server; }
check "cluster: without deletionProtection, no deletion is refused" wait_until crd_can_be_deleted
k delete clusterrolebinding janitor >/dev/null
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
# An operator of policies beside it.
check "cluster: an operator of policies only beside it" helm install policies "$chart" --namespace policies --create-namespace \
  --set onlyPolicies=true --set crds.install=false --set rbac.aggregate=false
of_policies=system:serviceaccount:policies:policies-pgrail
check "cluster: only policies: lists all kinds" can_all $of_policies other list "${others[@]}" guardexemptions guardrailpolicies
check "cluster: only policies: writes the status of policies" can $of_policies "" patch guardrailpolicies --subresource=status
check "cluster: only policies: creates guards of templates" can $of_policies other create tableguards
check "cluster: only policies: lists namespaces" can $of_policies "" list namespaces
check "cluster: only policies: no access to Secrets" not can $of_policies other get secrets
check "cluster: only policies: no Jobs" not can $of_policies other create jobs
check "cluster: only policies: no status of guards" not can $of_policies other patch tableguards --subresource=status
check "cluster: only policies: its Lease" can $of_policies policies update leases/pgrail-policies
check "cluster: only policies: uninstall" helm uninstall policies --namespace policies
check "cluster: uninstall with everything" bash -c "'$HELM' upgrade pgrail $chart --namespace pgrail-system --set crds.keep=false && '$HELM' uninstall pgrail --namespace pgrail-system"
check "cluster: then the CRDs are removed" wait_until absent crd tableguards.pgrail.dev backupschedules.pgrail.dev

no_crds() { local crds; crds=$(k get crd --output name) && [[ -z $crds ]]; }
# What is deleted with its namespace, or with its CRD, may be gone before its turn.
removed() { k delete --ignore-not-found "$@" && wait_until no_crds; }
check "cluster: no CRD is left" wait_until no_crds
check "cluster: kustomize" k apply --server-side --kustomize deploy/kustomize/base
check "cluster: kustomize, removed" removed --kustomize deploy/kustomize/base
check "cluster: kustomize, one namespace" k apply --server-side --kustomize deploy/kustomize/overlays/namespaced
check "cluster: kustomize, one namespace: access to its Secrets" can $operator shop get secrets
check "cluster: kustomize, one namespace: no access to other Secrets" not can $operator other get secrets

# Back to nothing.
check "cluster: kustomize, one namespace, removed" removed --kustomize deploy/kustomize/overlays/namespaced
check "cluster: without a namespace" removed namespace pgrail-system

# An upgrade from an earlier version of the chart, with the objects of that time. Its sources are those of a commit.
earlier=e1f394070f0a && earlier_date=2026-11-25
if git cat-file -e "$earlier^{commit}" 2>/dev/null; then
  mkdir "$scratch/earlier"
  git archive "$earlier" charts/pgrail examples | tar -x -C "$scratch/earlier"
  # As the operator leaves them: with finalizers and a status.
  objects_of_earlier() {
    local file kind
    k create namespace kept && k create namespace rds && k create namespace supabase
    for file in minimal s3-backup backup-now exemption restore-user window; do
      k apply --namespace kept --filename "$scratch/earlier/examples/$file.yaml"
    done
    k apply --namespace rds --filename "$scratch/earlier/examples/rds.yaml"
    k apply --namespace supabase --filename "$scratch/earlier/examples/supabase.yaml"
    for kind in protecteddatabase tableguard backupschedule; do
      k patch "$kind" --namespace kept "$(k get "$kind" --namespace kept --output name | head -n 1 | cut -d / -f 2)" --type merge \
        --patch '{"metadata": {"finalizers": ["pgrail.dev/cleanup"]}}'
    done
    k patch tableguard core --namespace kept --subresource status --type merge --patch '{"status": {"observedGeneration": 1,
      "tablesMatched": 1, "blockedAttempts": 12, "conditions": [{"type": "Enforced", "status": "True", "reason": "Verified",
      "message": "", "observedGeneration": 1, "lastTransitionTime": "2026-11-25T12:00:00Z"}]}}'
  }
  kinds=protecteddatabases,tableguards,guardexemptions,backupschedules,databasebackups,databaserestores,guardrailpolicies
  objects() { k get $kinds --all-namespaces --output json | jq -S '[.items[] | {key: .metadata.uid, value: {kind, spec, status, metadata: (.metadata | {namespace, name, labels, annotations, finalizers, deletionTimestamp, generation})}}] | from_entries'; }
  # Everything that was there is there, as it was. Fields that a later version of a CRD adds with a default are new.
  nothing_is_lost() {
    objects >"$scratch/now.json"
    jq -e 'length >= 10' "$scratch/before.json" >/dev/null || { echo "too few objects: $(jq length "$scratch/before.json")"; return 1; }
    jq -en --slurpfile before "$scratch/before.json" --slurpfile now "$scratch/now.json" '
      def within($outer): . as $inner | if ($inner | type) == "object" then ($outer | type) == "object" and
          ([$inner | to_entries[] | select(.value != null) | .key as $key | .value | within($outer[$key])] | all)
        else $inner == $outer end;
      $before[0] | within($now[0])' >/dev/null || { diff "$scratch/before.json" "$scratch/now.json"; return 1; }
  }
  crds_are_served() { k wait --for=condition=Established --timeout=30s $(k get crd --output name | grep pgrail) && for kind in ${kinds//,/ }; do k get "$kind" --all-namespaces; done; }
  protected() { k get protecteddatabase new --namespace kept --output jsonpath='{.spec.protectDatabase}'; }
  is_protected() { [[ $(protected) == true ]]; }

  check "upgrade: the chart of $earlier_date" helm install pgrail "$scratch/earlier/charts/pgrail" --namespace pgrail-system --create-namespace
  k wait --for=condition=Established crd/tableguards.pgrail.dev --timeout=30s >/dev/null
  check "upgrade: objects of that time" objects_of_earlier
  objects >"$scratch/before.json"
  check "upgrade: to this chart" install
  check "upgrade: the CRDs are served" crds_are_served
  check "upgrade: nothing is lost" nothing_is_lost
  new_field() { sed -n '/^kind: ProtectedDatabase/,/^---/p' examples/minimal.yaml | sed -e '1i apiVersion: pgrail.dev/v1alpha1' -e '/^---/d' -e 's/name: shop$/name: new/' -e 's/^spec:/spec:\n  protectDatabase: true/' | k apply --validate=strict --namespace kept --filename -; }
  check "upgrade: a field that the CRD of before did not have" new_field
  check "upgrade: it is stored" is_protected
  check "upgrade: rollback" helm rollback pgrail 1 --namespace pgrail-system
  check "upgrade: rolled back, the CRDs are served" crds_are_served
  check "upgrade: rolled back, nothing is lost" nothing_is_lost
  check "upgrade: rolled back, the CRDs are those of before" not is_protected
  check "upgrade: again, with all admission policies" install --set deletionProtection.enabled=true,jobPolicy.enabled=true,exemptionRequester.enabled=true
  check "upgrade: again, nothing is lost" nothing_is_lost
  check "upgrade: again, the new field is back" is_protected
  check "upgrade: uninstall" helm uninstall pgrail --namespace pgrail-system
  check "upgrade: uninstalled, nothing is lost" nothing_is_lost
elif [[ ${CI:-} == true ]]; then
  check "upgrade: the commit $earlier of $earlier_date is in the repository (a clone with its history is required)" false
else
  echo "SKIPPED the upgrade from the chart of $earlier_date: the commit $earlier is not in this clone"
fi
