#!/usr/bin/env bash
# smoke.sh: tests that the cluster does what the end-to-end tests need, and that nothing is left of it, even after SIGKILL
# of every process. Needs root. Its last line counts.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
# shellcheck source=../check.sh
source "$cluster_dir/../check.sh"
unset PGRAIL_KUBECONFIG
name=smoke-$$
other=smoke-b-$$
work=$(mktemp -d)
trap '"$cluster_dir/down.sh" --name "$name"; "$cluster_dir/down.sh" --name "$other"; rm -rf "$work"' EXIT

up() { "$cluster_dir/up.sh" --node --owner $$ --name "$1" >"$work/$1.env"; }

# restricted_job NAMESPACE NAME SCRIPT: runs the script in a pod as restricted as pods come, of an arbitrary user.
restricted_job() {
  kubectl --namespace "$1" apply -f - <<J
apiVersion: batch/v1
kind: Job
metadata: {name: $2}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      securityContext: {runAsNonRoot: true, runAsUser: 1000650000, seccompProfile: {type: RuntimeDefault}}
      volumes:
        - {name: tmp, emptyDir: {}}
        - {name: scratch, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}}
        - {name: superuser, secret: {secretName: postgres-superuser, optional: true}}
        - {name: tls, secret: {secretName: postgres-tls, optional: true}}
      containers:
        - name: script
          image: pgrail.dev/postgresql:18
          command: [bash, -euxc]
          args: [$(jq --raw-input --slurp . <<<"$3")]
          securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            - {name: scratch, mountPath: /scratch}
            - {name: superuser, mountPath: /superuser}
            - {name: tls, mountPath: /tls}
J
  finished "$1" "$2"
}
finished() {
  until_ok 60 settled "$1" "$2" || true
  kubectl --namespace "$1" logs "job/$2" || kubectl --namespace "$1" describe pods
  kubectl --namespace "$1" wait --for=condition=Complete --timeout=0s "job/$2"
}
settled() { kubectl --namespace "$1" get job "$2" -o jsonpath='{.status.conditions[*].type}' | grep -E 'Complete|Failed'; }

secret() { kubectl --namespace smoke get secret "$1" -o jsonpath="{.data.$2}" | base64 -d; }

s3_keeps_an_object() {
  local address
  address=$(kubectl --namespace smoke get service s3 -o jsonpath='{.spec.clusterIP}')
  head -c 5000000 /dev/urandom >"$work/object"
  local curl=(curl --silent --show-error --fail --max-time 30 --aws-sigv4 aws:amz:us-east-1:s3
    --header "x-amz-content-sha256: UNSIGNED-PAYLOAD"
    --user "$(secret s3 AWS_ACCESS_KEY_ID):$(secret s3 AWS_SECRET_ACCESS_KEY)")
  "${curl[@]}" --upload-file "$work/object" "http://$address:9000/backups/a/b"
  "${curl[@]}" --output "$work/back" "http://$address:9000/backups/a/b"
  cmp "$work/object" "$work/back"
  # Not without credentials.
  ! curl --silent --fail --max-time 30 "http://$address:9000/backups/a/b" --output /dev/null
}

job_from_cronjob() {
  kubectl --namespace smoke create cronjob tick --image pgrail.dev/pause:1 --schedule '0 0 1 1 *' --dry-run=client -o json -- /busybox true |
    jq '.spec.jobTemplate.spec.template.spec |= (.securityContext = {runAsNonRoot: true, seccompProfile: {type: "RuntimeDefault"}} |
      .containers[0].securityContext = {allowPrivilegeEscalation: false, capabilities: {drop: ["ALL"]}})' | kubectl apply -f -
  kubectl --namespace smoke create job --from cronjob/tick tick-now
  finished smoke tick-now
}

postgres_sql() {
  # shellcheck disable=SC2016 # expanded in the pod
  kubectl --namespace smoke exec statefulset/postgres -- bash -c 'PGPASSWORD=$(cat /superuser/password) psql -h 127.0.0.1 -U postgres -Atc "$1"' psql "$1"
}
postgres_keeps_its_data() {
  postgres_sql "create table kept as select 42 as answer"
  kubectl --namespace smoke scale statefulset/postgres --replicas 0
  kubectl --namespace smoke wait --for=delete pod/postgres-0 --timeout=60s
  kubectl --namespace smoke scale statefulset/postgres --replicas 1
  until_ok 60 kubectl --namespace smoke get pod postgres-0
  kubectl --namespace smoke rollout status statefulset/postgres --timeout=60s || { kubectl --namespace smoke logs postgres-0; return 1; }
  [[ $(postgres_sql "select answer from kept") == 42 ]]
}

privileged_pod_is_refused() { ! kubectl --namespace smoke run bad --image pgrail.dev/pause:1 --privileged; }

pod_reaches_the_host() {
  local port=$((23000 + RANDOM % 1000))
  printf 'from the host\n' | timeout 60 busybox nc -l -p "$port" &
  restricted_job smoke host "[[ \$(cat </dev/tcp/$PGRAIL_CLUSTER_HOST/$port) == 'from the host' ]]"
}

apiserver_comes_back() {
  "$cluster_dir/component.sh" --name "$name" stop apiserver
  ! kubectl get --raw /readyz --request-timeout 2s || return 1
  "$cluster_dir/component.sh" --name "$name" start apiserver
  until_ok 30 kubectl get --raw /readyz --request-timeout 2s
  kubectl --namespace smoke get secret s3
}

volume_is_removed_with_its_claim() {
  kubectl --namespace smoke delete job job postgres host >/dev/null
  until_ok 30 only_two_volumes
}
only_two_volumes() { [[ $(kubectl get pv -o name | wc -l) == 2 && $(find "$run/node/volumes" -mindepth 1 -maxdepth 1 | wc -l) == 2 ]]; }

kill_everything() {
  local pid
  read -r pid _ <"$run/supervisor.pid"
  { echo "$pid"; processes_of "$run"; } | xargs kill -KILL 2>/dev/null || true
  until_ok 10 nothing_runs "$run"
}

"$cluster_dir/requirements.sh" node
"$cluster_dir/requirements.sh" image
command -v jq >/dev/null || missing jq
command -v curl >/dev/null || missing curl

check "a node starts" up "$name"
# shellcheck source=/dev/null
source "$work/$name.env"
run=$(run_dir "$name") link=$(link_of "$name")
check "helm works" "$HELM" version
check "helm reaches the cluster" "$HELM" list --all-namespaces
check "PostgreSQL and S3 start as restricted pods" "$cluster_dir/workloads/up.sh" --name "$name" smoke postgres s3
check "a restricted Job of an arbitrary user completes, with a scratch volume" restricted_job smoke job \
  'id; ! touch /x; touch /tmp/x /scratch/x; getent hosts kubernetes.default.svc; getent hosts s3; exec 3<>/dev/tcp/s3/9000'
# shellcheck disable=SC2016 # expanded in the pod
check "PostgreSQL answers over TLS by its Service's name" restricted_job smoke postgres \
  'export PGPASSWORD=$(cat /superuser/password); [[ $(psql "host=postgres.smoke.svc user=postgres dbname=postgres sslmode=verify-full sslrootcert=/tls/ca.crt" -Atc "show server_version_num") == 18* ]]'
check "PostgreSQL keeps its data when it is scaled to 0 and back" postgres_keeps_its_data
check "S3 keeps an object, reached from this machine" s3_keeps_an_object
check "a Job is created from a CronJob" job_from_cronjob
check "Pod Security refuses a privileged pod" privileged_pod_is_refused
check "a pod reaches this machine" pod_reaches_the_host
check "a volume is removed with its claim" volume_is_removed_with_its_claim
check "the apiserver is stopped and started again, with its objects" apiserver_comes_back
check "a second node starts beside it" up "$other"
other_link=$(link_of "$other")
check "the second has a state of its own" bash -c "source '$work/$other.env'; ! kubectl get namespace smoke && kubectl get node node1"
check "the first still answers" kubectl --namespace smoke get pods
check "the second ends" "$cluster_dir/down.sh" --name "$other"
check "nothing of the second is left" nothing_left_of "$other" "$other_link"
check "the first still runs" s3_keeps_an_object
check "SIGKILL of every process" kill_everything
check "it starts again over what was left" up "$name"
link=$(link_of "$name")
check "it is a new one" bash -c "source '$work/$name.env'; ! kubectl get namespace smoke"
check "it ends" "$cluster_dir/down.sh" --name "$name"
check "nothing is left" nothing_left_of "$name" "$link"
count_line
