# shellcheck shell=bash disable=SC2016,SC2034,SC2154
# The demo with real pods: on a throwaway node, or on a given cluster. Sourced by demo.sh.

if [[ $stage == node ]]; then
  namespace=friday release=pgrail release_namespace=pgrail-system
  backup_manifest=$friday/backup.yaml
else
  # Beside a pgrail that may be installed already: a release that watches the demo's namespace only.
  namespace=pgrail-$run release=pgrail-$run release_namespace=pgrail-$run
  backup_manifest=$friday/backup-volume.yaml
  export KUBECONFIG=$DEMO_KUBECONFIG
fi
sql_host=postgres sql_database=friday own_database=yes made_crds=''
admin_password=$(password) app_password=$(password)

stage_up() {
  if [[ $stage == node ]]; then
    step "A Kubernetes for the demo"
    begin_building pods
    quietly "Kubernetes, one node" "$root/e2e/cluster/up.sh" --node --name "$run" "${owner[@]}"
    eval "$("$root/e2e/cluster/env.sh" --name "$run")"
    show kubectl get nodes -o wide
    build_image
  else
    step "Your Kubernetes"
    eval "$(PGRAIL_KUBECONFIG=$DEMO_KUBECONFIG "$root/e2e/cluster/env.sh")"
    show kubectl version
    image=$DEMO_IMAGE
  fi
  kubectl create namespace "$namespace" >/dev/null
  kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted >/dev/null
}

build_image() {
  finished "Debian with PostgreSQL for the image"
  built
  image=pgrail.dev/pgrail:demo
  quietly "the image, built from deploy/Dockerfile" "$root/e2e/cluster/image.sh" --name "$run" --tag "$image" \
    --binary "$program"
}

apply() { sed "s|image: pgrail.dev/.*|image: $image|" "$1" | kubectl apply -n "$namespace" -f - >/dev/null; }
secret() { # NAME KEY=VALUE...: not on a command line, which other users can read
  local name=$1 pair; shift
  {
    printf 'apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\nstringData:\n' "$name"
    for pair in "$@"; do printf '  %s: "%s"\n' "${pair%%=*}" "${pair#*=}"; done
  } | kubectl apply -n "$namespace" -f - >/dev/null
}

in_toolbox() { kubectl exec -i -n "$namespace" toolbox -- sh -c "$@"; }
sql_admin() { in_toolbox 'exec psql -X -q -v ON_ERROR_STOP=1 "$ADMIN_URL" "$@"' psql "$@"; }
pgrail_grants() { in_toolbox 'exec pgrail grants "$@"' pgrail "$@"; }
# The script is an argument: a kubectl exec with standard input was seen to lose all of it, and psql then does nothing.
sql_app() {
  kubectl exec -n "$namespace" toolbox -- \
    sh -c 'script=$1; shift; printf "%s\n" "$script" | psql -X "$APP_URL" "$@" 2>&1' psql "$(cat)" "$@"
}

stage_database() {
  local server=postgres://postgres:$admin_password@postgres:5432
  # Needed for the backup only: it starts in the background.
  [[ $stage != node ]] || begin "an S3 server" "$root/e2e/cluster/workloads/up.sh" --name "$run" "$namespace" s3
  if [[ -n ${DEMO_DATABASE_URL:-} ]]; then
    own_database=''
    sql_database=pgrail_${run//-/_}
    split_url "$DEMO_DATABASE_URL"
    sql_host=$url_host
    secret toolbox "SERVER_URL=$DEMO_DATABASE_URL" "ADMIN_URL=$url_login@$url_host$url_port/$sql_database$url_query" \
      "APP_URL=${url_scheme}friday_app:$app_password@$url_host$url_port/$sql_database$url_query" "APP_PASSWORD=$app_password"
  else
    secret postgres-superuser "password=$admin_password"
    certificate
    # The server that pgrail's own image has for drills: no second image is needed.
    apply "$root/e2e/cluster/workloads/postgres.yaml"
    secret toolbox "SERVER_URL=$server/postgres" "ADMIN_URL=$server/friday" \
      "APP_URL=postgres://friday_app:$app_password@postgres:5432/friday" "APP_PASSWORD=$app_password"
  fi
  apply "$here/toolbox.yaml"
  await 180 "the toolbox starts" kubectl wait -n "$namespace" --for=condition=Ready pod/toolbox --timeout=1s
  [[ -z $own_database ]] || await 180 "PostgreSQL starts" kubectl rollout status -n "$namespace" statefulset/postgres --timeout=1s
  await 60 "PostgreSQL answers" in_toolbox 'psql -X -d "$SERVER_URL" -c "select 1"'
  if [[ -z $own_database ]]; then
    roles=$(in_toolbox "psql -X -At -d \"\$SERVER_URL\" -c \"select string_agg(rolname, ', ') from pg_roles where rolname in ('pgrail', 'friday_app', 'friday_owner')\"")
    [[ -z $roles ]] || { sql_database=''; stop "that server already has roles that the demo would create and drop: $roles"; }
  fi
  in_toolbox "psql -X -q -d \"\$SERVER_URL\" -c 'create database $sql_database'"
  quietly "1.3 million rows loaded" load_schema
  good "PostgreSQL $(sql_admin -Atc 'show server_version')"
}
# A CA, and a certificate that it signed: a client that verifies does not accept a CA's own certificate for a server.
certificate() {
  local key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
  {
    openssl req -x509 "${key[@]}" -days 2 -subj "/CN=pgrail demo CA" -keyout "$work/ca.key" -out "$work/ca.crt"
    openssl req "${key[@]}" -subj /CN=postgres -keyout "$work/tls.key" -out "$work/tls.csr"
    openssl x509 -req -in "$work/tls.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -set_serial 1 -days 2 \
      -extfile <(printf 'subjectAltName=DNS:postgres\nextendedKeyUsage=serverAuth\n') -out "$work/tls.crt"
  } >"$logs/certificate.log" 2>&1
  kubectl create secret generic postgres-tls -n "$namespace" --from-file=tls.crt="$work/tls.crt" \
    --from-file=tls.key="$work/tls.key" --from-file=ca.crt="$work/ca.crt" >/dev/null
}
load_schema() {
  sql_admin <"$friday/schema.sql"
  in_toolbox 'psql -X -q -d "$ADMIN_URL" -v password="$APP_PASSWORD"' <<<"ALTER ROLE friday_app PASSWORD :'password'"
}

split_url() { # postgres://user:password@host:port/database?options
  local rest=${1#*://}
  url_scheme=${1%%://*}://
  url_query=''
  [[ $rest == *\?* ]] && url_query="?${rest#*\?}"
  rest=${rest%%\?*}
  url_login=$url_scheme${rest%@*}
  rest=${rest##*@}
  rest=${rest%%/*}
  url_host=${rest%%:*} url_port=''
  [[ $rest == *:* ]] && url_port=:${rest##*:}
  [[ -n $url_host && $1 == *@* ]] || stop "DEMO_DATABASE_URL must look like postgres://user:password@host:port/database"
}

stage_operator() {
  local arguments=() name=${image%@*}
  if [[ $image == *@* ]]; then arguments+=(--set "image.digest=${image#*@}"); fi
  # A colon after the last slash begins the tag; one before it, a registry's port.
  if [[ ${name##*/} == *:* ]]; then arguments+=(--set "image.tag=${name##*:}") name=${name%:*}; fi
  arguments+=(--set "image.repository=$name")
  if [[ $stage == given ]]; then
    arguments+=(--set "watchNamespace=$namespace")
    if kubectl get crd tableguards.pgrail.dev >/dev/null 2>&1; then
      arguments+=(--set crds.install=false)
    else
      made_crds=yes
      arguments+=(--set crds.keep=false)
    fi
    [[ -n $own_database ]] || arguments+=(--set "allowedHosts={$sql_host}")
  fi
  show helm upgrade --install "$release" charts/pgrail --namespace "$release_namespace" --create-namespace \
    --wait --timeout 3m "${arguments[@]}" --hide-notes
  show kubectl get pods -n "$release_namespace" -l "app.kubernetes.io/instance=$release"
}

stage_store() {
  [[ $stage == node ]] || return 0
  finished "the S3 server, built from source"
  finished "an S3 server"
}

# A given server has a certificate of another CA, or none.
database_manifest() { if [[ -n $own_database ]]; then cat "$friday/database.yaml"; else sed '/tls:/d' "$friday/database.yaml"; fi; }

# A login role for pgrail with only the privileges it needs, and the Secret that the ProtectedDatabase names.
stage_login() {
  local login_password
  login_password=$(password)
  make_login "$login_password"
  if [[ -n $own_database ]]; then
    secret friday-pgrail "uri=postgres://pgrail:$login_password@postgres:5432/$sql_database"
  else
    secret friday-pgrail "uri=${url_scheme}pgrail:$login_password@$url_host$url_port/$sql_database$url_query"
  fi
}

stage_logs() {
  echo "--- the operator's log"
  kubectl logs -n "$release_namespace" "deployment/$release" --tail=30
  echo "--- logs of failed Jobs"
  kubectl get pods -n "$namespace" -l app.kubernetes.io/managed-by=pgrail -o name |
    while read -r pod; do kubectl logs -n "$namespace" "$pod" --all-containers --tail=15 --prefix; done
}

stage_down() {
  if [[ $stage == node ]]; then
    "$root/e2e/cluster/down.sh" --name "$run"
    return
  fi
  kubectl delete tguard,bsched,dbbackup,pgdb --all -n "$namespace" --ignore-not-found --timeout=60s
  if [[ -z $own_database && -n $sql_database ]]; then
    in_toolbox "psql -X -q -d \"\$SERVER_URL\" -c 'drop database if exists $sql_database with (force)'"
    in_toolbox "psql -X -q -d \"\$SERVER_URL\" -c 'drop role if exists friday_app, friday_owner, pgrail'"
  fi
  helm uninstall "$release" -n "$release_namespace" --ignore-not-found --wait
  kubectl delete namespace "$namespace" --ignore-not-found --timeout=120s
}

stage_kept() {
  echo "Everything keeps running. To use it and to end it:"
  if [[ $stage == node ]]; then
    echo "  eval \"\$($root/e2e/cluster/env.sh --name $run)\"; kubectl get pgrail -A"
    echo "  $root/e2e/cluster/down.sh --name $run"
  else
    echo "  kubectl get pgrail -n $namespace; helm uninstall $release -n $release_namespace; kubectl delete namespace $namespace"
  fi
}
