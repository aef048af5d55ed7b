#!/bin/bash
# Kubernetes API servers for tests, each with an etcd of its own, on loopback.
#
#   controlplane.sh start DIR [FLAG...]   starts a server whose everything is in DIR; prints the admin's kubeconfig. A server
#                                         that was stopped starts again with its data, port and flags
#   controlplane.sh stop DIR [--purge]    ends it; --purge also deletes DIR
#   controlplane.sh kill DIR              the API server dies at once; etcd stays
#   controlplane.sh pause DIR | cont DIR  the API server hangs (SIGSTOP); goes on
#   controlplane.sh status DIR            running, hanging or down
#   controlplane.sh user DIR NAME [--expired] [GROUP...]   a kubeconfig with a client certificate of this user
#   controlplane.sh reap DIR              waits for the end of standard input, then stops every server below DIR and
#                                         deletes it (a test run's safety net)
#
# FLAGs go to the API server; it always has RBAC. Which program that is, programs.sh decides. In DIR: admin.kubeconfig,
# ca.crt, token (the admin's), port, api.log, etcd.log.
#   DROVER_CONTROLPLANE_READY   seconds that a start may take (60)
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
READY=${DROVER_CONTROLPLANE_READY:-60}

fail() {
  echo "controlplane: $*" >&2
  exit 1
}

# The process that a pid file names, where it is still the one that was started: pids are used again.
pid_of() {
  local pid
  pid=$(cat "$1/$2.pid" 2>/dev/null) && [ -n "$pid" ] && [ "$(readlink "/proc/$pid/exe" 2>/dev/null)" = "$(cat "$1/$2.exe" 2>/dev/null)" ] && echo "$pid"
}

end_process() {
  local pid signal=$3
  pid=$(pid_of "$1" "$2") || return 0
  kill -CONT "$pid" 2>/dev/null || true
  kill "-$signal" "$pid" 2>/dev/null || true
  for _ in $(seq 100); do
    pid_of "$1" "$2" >/dev/null || return 0
    sleep 0.05
  done
  kill -KILL "$pid" 2>/dev/null || true
  for _ in $(seq 100); do
    pid_of "$1" "$2" >/dev/null || return 0
    sleep 0.05
  done
  fail "process $pid ($2 of $1) does not end"
}

# certificate NAME SUBJECT EXTENSIONS [START END]: NAME.crt and NAME.key, in the current folder.
certificate() {
  local name=$1 subject=$2 extensions=$3 start=${4:-} end=${5:-}
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$name.key" -out "$name.csr" -subj "$subject" 2>/dev/null
  # `openssl x509` of version 3.0 cannot date a certificate back; `openssl ca` can.
  : >"$name.index"
  printf '%s\n' '[ca]' 'default_ca=c' '[c]' "database=$name.index" 'rand_serial=yes' 'default_md=sha256' 'policy=p' 'unique_subject=no' \
    'new_certs_dir=.' '[p]' 'commonName=supplied' 'organizationName=optional' >"$name.cnf"
  printf '%b\n' "$extensions" >"$name.ext"
  openssl ca -batch -notext -config "$name.cnf" -preserveDN -in "$name.csr" -out "$name.crt" -cert ca.crt -keyfile ca.key -extfile "$name.ext" \
    ${start:+-startdate "$start"} -enddate "${end:-20491231235959Z}" 2>openssl.log || fail "openssl ca: $(cat openssl.log)"
  rm -f "$name".{csr,cnf,ext,index,index.attr,index.old,index.attr.old} openssl.log
}

SERVER_NAMES='subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth'

credentials() {
  [ -f complete ] && return
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.crt -days 9000 -subj "/CN=test cluster $(basename "$PWD")" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
  certificate server /CN=kube-apiserver "$SERVER_NAMES"
  # For a front that shows a certificate whose time is over.
  certificate server-expired /CN=kube-apiserver "$SERVER_NAMES" 20200101000000Z 20200201000000Z
  certificate admin /O=system:masters/CN=admin extendedKeyUsage=clientAuth
  openssl genrsa -out service-accounts.key 2048 2>/dev/null
  openssl rand -hex 16 | tr -d '\n' >token
  echo "$(cat token),admin,admin,\"system:masters\"" >tokens.csv
  rm -f ./*.pem # copies that `openssl ca` keeps
  touch complete
}

# kubeconfig CERTIFICATE: on standard output.
kubeconfig() {
  cat <<K
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:$(cat port)", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}}]
contexts: [{name: test, context: {cluster: test, user: $1}}]
current-context: test
K
}

# Below the range from which the kernel takes ports for outgoing connections.
free_port() {
  local port
  for _ in $(seq 200); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 10000))
    if ! (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
  fail "no free port between 20000 and 29999"
}

launch() { # launch NAME PROGRAM FLAG...
  local name=$1 program
  program=$(readlink -f "$2")
  echo "$program" >"$name.exe"
  "$program" "${@:3}" </dev/null >>"$name.log" 2>&1 8>&- 9>&- &
  echo $! >"$name.pid"
}

answers() {
  curl -sf --max-time 5 --cacert ca.crt --cert admin.crt --key admin.key "https://127.0.0.1:$(cat port)$1" 2>/dev/null
}

launch_api() {
  local kind=$1 folder=$2 flags=()
  mapfile -t flags <flags
  set -- --etcd-servers "unix://$PWD/etcd.sock" --secure-port "$(cat port)" --tls-cert-file server.crt --tls-private-key-file server.key \
    --client-ca-file ca.crt --token-auth-file tokens.csv --authorization-mode RBAC
  case $kind in
    # Without the flag the prebuilt program takes a wrong token for no token.
    controlplane) set -- "$@" --anonymous-auth=false ;;
    kube-apiserver) set -- "$@" --bind-address 127.0.0.1 --advertise-address 127.0.0.1 --endpoint-reconciler-type none \
      --cert-dir . --service-cluster-ip-range 10.0.0.0/24 --service-account-issuer https://kubernetes.default.svc \
      --service-account-key-file service-accounts.key --service-account-signing-key-file service-accounts.key \
      --disable-admission-plugins ServiceAccount --allow-privileged=true ;;
  esac
  launch api "$folder/$kind" "$@" "${flags[@]}"
}

start() {
  local dir=$1 programs kind folder deadline attempt
  shift
  programs=$("$HERE/programs.sh" find) || exit 1
  kind=${programs%% *} folder=${programs#* }
  mkdir -p "$dir"
  cd "$dir"
  # A reaper of the folder above waits for starts that are under way, and forbids new ones.
  exec 8>"../.starts"
  flock -s 8
  [ ! -e ../.closing ] || fail "$(dirname "$PWD") is being taken down"
  exec 9>lock
  flock -w 120 9 || fail "another controlplane.sh has been at work in $PWD for 2 minutes"
  [ ${#PWD} -le 90 ] || fail "the path of $PWD is too long for a socket in it (90 characters)"
  credentials
  if [ $# -gt 0 ] || [ ! -f flags ]; then
    if [ $# -gt 0 ]; then printf '%s\n' "$@"; fi >flags
  fi
  if ! pid_of . etcd >/dev/null; then
    rm -f ./*.sock
    # On sockets in the folder, so that it needs no port. What it advertises must look like a port, and nobody asks.
    launch etcd "$folder/etcd" --name test --data-dir etcd --listen-client-urls "unix://$PWD/etcd.sock" \
      --advertise-client-urls http://127.0.0.1:1 --listen-peer-urls "unix://$PWD/peer.sock" \
      --initial-advertise-peer-urls http://127.0.0.1:1 --initial-cluster test=http://127.0.0.1:1 \
      --unsafe-no-fsync --log-level warn
  fi
  deadline=$((SECONDS + READY))
  for attempt in 1 2 3; do
    if [ ! -f port ]; then
      free_port >port
    fi
    kubeconfig admin >admin.kubeconfig
    pid_of . api >/dev/null || launch_api "$kind" "$folder"
    while [ $SECONDS -lt $deadline ]; do
      if answers /readyz >/dev/null; then
        touch ran # from now on it keeps its port: kubeconfigs name it
        echo "$PWD/admin.kubeconfig"
        return
      fi
      pid_of . etcd >/dev/null || fail "etcd ended: $(tail -3 etcd.log)"
      pid_of . api >/dev/null || break
      sleep 0.1
    done
    if ! pid_of . api >/dev/null && tail -5 api.log | grep -q 'address already in use' && [ ! -e ran ]; then
      rm port
      continue
    fi
    break
  done
  fail "$PWD is not ready after $READY s: $(tail -3 api.log)"
}

stop() {
  local dir=$1
  [ -d "$dir" ] || return 0
  end_process "$dir" api TERM
  end_process "$dir" etcd TERM
  if [ "${2:-}" = --purge ]; then rm -rf "$dir"; fi
}

user() {
  local name=$2 dates=() subject
  cd "$1"
  shift 2
  if [ "${1:-}" = --expired ]; then
    dates=(20200101000000Z 20200201000000Z)
    shift
  fi
  subject=$(printf '/O=%s' "$@" | sed 's,^/O=$,,')/CN=$name
  certificate "$name" "$subject" extendedKeyUsage=clientAuth "${dates[@]}"
  rm -f ./*.pem
  kubeconfig "$name" >"$name.kubeconfig"
  echo "$PWD/$name.kubeconfig"
}

reap() {
  local pid_file
  mkdir -p "$1"
  cat >/dev/null
  touch "$1/.closing"
  exec 8>"$1/.starts"
  flock -w $((READY + 30)) 8 || true
  for pid_file in "$1"/*/etcd.pid; do
    [ -e "$pid_file" ] || continue
    # All at once, and no time for good-byes: nothing of theirs is kept.
    (end_process "$(dirname "$pid_file")" api KILL && end_process "$(dirname "$pid_file")" etcd KILL) &
  done
  wait
  rm -rf "$1"
}

status() {
  local pid
  if ! pid=$(pid_of "$1" api); then
    echo down
  elif [ "$(awk '{print $3}' "/proc/$pid/stat")" = T ]; then
    echo hanging
  else
    echo running
  fi
}

usage() {
  sed -n '2,/^set -/p' "$0" | grep '^#' | sed 's/^# \{0,1\}//' >&2
  exit 64
}

[ $# -ge 2 ] || usage
case $1 in
  start) start "${@:2}" ;;
  stop) stop "${@:2}" ;;
  kill) end_process "$2" api KILL ;;
  pause) kill -STOP "$(pid_of "$2" api)" ;;
  cont) kill -CONT "$(pid_of "$2" api)" ;;
  status) status "$2" ;;
  user) user "${@:2}" ;;
  reap) reap "$2" ;;
  *) usage ;;
esac
