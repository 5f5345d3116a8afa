# shellcheck shell=bash disable=SC2016,SC2034,SC2154
# The demo where no pods can run: a control plane without nodes, PostgreSQL and the operator as processes of this machine.
# Sourced by demo.sh.

namespace=friday release=pgrail release_namespace=pgrail-system
backup_manifest=''
sql_database=friday app_password=$(password)
operator_process=''

stage_up() {
  loud "No pods can run here: that needs root, and the privilege to create namespaces and network links."
  tell "A real control plane, a real PostgreSQL, the real operator as a process." \
       "Left out: the operator's pod, its image, and backups, which are made by pods. As root, make demo shows all of it."
  step "A Kubernetes control plane for the demo"
  begin_building ''
  quietly "etcd, API server, controller manager" "$root/e2e/cluster/up.sh" --name "$run" "${owner[@]}"
  eval "$("$root/e2e/cluster/env.sh" --name "$run")"
  show kubectl version
  built
  kubectl create namespace "$namespace" >/dev/null
}

stage_database() {
  local version=18
  export PGRAIL_RUN=$run PGRAIL_TEST_MAJORS=$version PGRAIL_TEST_POOLER=no
  finished "PostgreSQL, downloaded"
  quietly "PostgreSQL" "$root/e2e/postgres/servers.sh" up
  eval "$("$root/e2e/postgres/servers.sh" env)"
  server_url=${PGRAIL_TEST_SERVERS#*=}
  server_url=${server_url%/postgres}
  psql=$PGRAIL_TEST_PG_BIN_18/psql
  "$psql" -X -q "$server_url/postgres" -c "create database $sql_database"
  quietly "1.3 million rows loaded" load_schema
  kubectl create secret generic postgres-tls -n "$namespace" --from-file=ca.crt="$PGRAIL_TEST_CA" >/dev/null
  good "PostgreSQL $(sql_admin -Atc 'show server_version')"
}
load_schema() {
  sql_admin -f "$friday/schema.sql"
  sql_admin -v password="$app_password" <<<"ALTER ROLE friday_app PASSWORD :'password'"
}
sql_admin() { "$psql" -X -q -v ON_ERROR_STOP=1 "$server_url/$sql_database" "$@"; }
sql_app() { "$psql" -X "postgres://friday_app:$app_password@${server_url##*@}/$sql_database" "$@" 2>&1; }
database_manifest() { cat "$friday/database.yaml"; }
pgrail_grants() { "$program" grants "$@"; }

secret() { # NAME KEY=VALUE...: not on a command line, which other users can read
  local name=$1 pair; shift
  {
    printf 'apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\nstringData:\n' "$name"
    for pair in "$@"; do printf '  %s: "%s"\n' "${pair%%=*}" "${pair#*=}"; done
  } | kubectl apply -n "$namespace" -f - >/dev/null
}

stage_operator() {
  # The chart installs the CRDs and the RBAC rules; a pod would wait for a node forever.
  HELM=${HELM:-$("$root/e2e/cluster/tools.sh" helm)/helm}
  show helm upgrade --install "$release" charts/pgrail \
    --namespace "$release_namespace" --create-namespace --set replicas=0 --hide-notes
  local http
  http=127.0.0.1:$(free_port)
  # With the privileges of the chart's service account, not the administrator's.
  operator_kubeconfig
  KUBECONFIG=$work/operator.kubeconfig PGRAIL_NAMESPACE=$release_namespace PGRAIL_IDENTITY=$run \
    PGRAIL_HTTP_ADDRESS=$http PGRAIL_ALLOWED_HOSTS=127.0.0.1 setpriv --pdeathsig KILL "$program" operator >"$logs/operator.log" 2>&1 &
  operator_process=$!
  await 30 "the operator is ready" curl --silent --fail "http://$http/readyz"
  good "the operator runs as process $operator_process, with the privileges of the chart's service account"
}
operator_kubeconfig() {
  local token
  token=$(kubectl create token "$release" -n "$release_namespace" --duration=1h)
  cp "$KUBECONFIG" "$work/operator.kubeconfig"
  chmod 600 "$work/operator.kubeconfig"
  kubectl --kubeconfig "$work/operator.kubeconfig" config set-credentials operator --token="$token" >/dev/null
  kubectl --kubeconfig "$work/operator.kubeconfig" config set-context --current --user=operator >/dev/null
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

stage_login() {
  local login_password
  login_password=$(password)
  make_login "$login_password"
  secret friday-pgrail "uri=postgres://pgrail:$login_password@${server_url##*@}/$sql_database"
}

stage_logs() {
  echo "--- the operator's log"
  tail -n 30 "$logs/operator.log"
}

stage_down() {
  [[ -z $operator_process ]] || kill "$operator_process" 2>/dev/null
  [[ -z ${PGRAIL_RUN:-} ]] || "$root/e2e/postgres/servers.sh" down
  "$root/e2e/cluster/down.sh" --name "$run"
}

stage_kept() {
  echo "Everything keeps running. To use it and to end it:"
  echo "  eval \"\$($root/e2e/cluster/env.sh --name $run)\"; kubectl get pgrail -A"
  echo "  kill $operator_process; PGRAIL_RUN=$run $root/e2e/postgres/servers.sh down; $root/e2e/cluster/down.sh --name $run"
}
