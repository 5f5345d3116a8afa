# Sourced by the supervisor (control plane only) and by node.sh (full node): credentials, then etcd, apiserver,
# controller manager. Expects run, address, port, service_cidr, kube.
# shellcheck shell=bash disable=SC2154

# kubeconfig FILE USER TOKEN
write_kubeconfig() {
  (umask 077; cat >"$1.new" <<K
apiVersion: v1
kind: Config
clusters:
  - name: pgrail
    cluster: {server: "https://$address:$port", certificate-authority-data: $(base64 -w0 "$run/pki/ca.crt")}
users:
  - name: $2
    user: {token: $3}
contexts:
  - name: pgrail
    context: {cluster: pgrail, user: $2}
current-context: pgrail
K
  )
  mv "$1.new" "$1"
}

make_credentials() (
  umask 077
  mkdir -p "$run/pki"
  cd "$run/pki" || exit
  local key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365)
  openssl ecparam -name prime256v1 -genkey -noout -out sa.key
  openssl ec -in sa.key -pubout -out sa.pub
  openssl req -x509 "${key[@]}" -keyout ca.key -out ca.crt -subj /CN=pgrail-cluster-ca
  sign() { # NAME SUBJECT EXTENSION...
    local name=$1 subject=$2; shift 2
    openssl req "${key[@]:0:4}" -nodes -keyout "$name.key" -out "$name.csr" -subj "$subject"
    printf '%s\n' "$@" >"$name.ext"
    openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile "$name.ext" -out "$name.crt"
  }
  sign apiserver /CN=kube-apiserver \
    "subjectAltName=IP:127.0.0.1,IP:$address,IP:${service_cidr%.*}.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  sign kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client extendedKeyUsage=clientAuth
) >"$run/log/openssl.log" 2>&1

start_control_plane() {
  mkdir -p "$run/log" "$run/kubeconfig.d"
  make_credentials
  local user token groups
  # One identity per part, each with the privileges of its own role, as in a real cluster.
  while IFS=, read -r user groups; do
    token=$(openssl rand -hex 16)
    printf '%s,%s,%s,"%s"\n' "$token" "$user" "$user" "$groups"
    write_kubeconfig "$run/kubeconfig.d/${user##*:}" "$user" "$token"
  done >"$run/pki/tokens.csv" <<U
admin,system:masters
system:kube-controller-manager,
system:kube-scheduler,
system:kube-proxy,
coredns,
volume-provisioner,
system:node:node1,system:nodes
U
  # Relative on purpose: the address of a Unix socket must be short.
  keep etcd "$kube" etcd --data-dir "$run/etcd" --unsafe-no-fsync --quota-backend-bytes 1073741824 \
    --listen-client-urls "http://$etcd_address:$etcd_port" --advertise-client-urls "http://$etcd_address:$etcd_port" \
    --listen-peer-urls "http://$etcd_address:$((etcd_port + 1))"
  keep apiserver "$kube" apiserver --etcd-servers "http://$etcd_address:$etcd_port" \
    --bind-address "$bind_address" --secure-port "$port" --advertise-address "$address" "${apiserver_flags[@]}" \
    --service-cluster-ip-range "$service_cidr" --allow-privileged=true \
    --tls-cert-file "$run/pki/apiserver.crt" --tls-private-key-file "$run/pki/apiserver.key" \
    --client-ca-file "$run/pki/ca.crt" --token-auth-file "$run/pki/tokens.csv" \
    --kubelet-client-certificate "$run/pki/kubelet-client.crt" --kubelet-client-key "$run/pki/kubelet-client.key" \
    --kubelet-preferred-address-types InternalIP \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$run/pki/sa.pub" --service-account-signing-key-file "$run/pki/sa.key"
  keep controller-manager "$kube" controller-manager --kubeconfig "$run/kubeconfig.d/kube-controller-manager" \
    --authentication-kubeconfig "$run/kubeconfig.d/kube-controller-manager" --authorization-kubeconfig "$run/kubeconfig.d/kube-controller-manager" \
    --use-service-account-credentials --service-account-private-key-file "$run/pki/sa.key" --root-ca-file "$run/pki/ca.crt" \
    --leader-elect=false --secure-port "$controller_manager_port"
}
