#!/bin/bash
# The lab's own SSH keys and certificates, made once for a state folder: credentials.sh STATE HOST...
set -euo pipefail
state=$1
shift
mkdir -p "$state"/{ssh,tls}
for key in host_key client_key; do
  [ -f "$state/ssh/$key" ] || ssh-keygen -q -t ed25519 -N '' -C "drover lab" -f "$state/ssh/$key"
done
for host; do
  for name in host kvm; do echo "$name-$host $(cut -d' ' -f1,2 "$state/ssh/host_key.pub")"; done
done >"$state/ssh/known_hosts"

cd "$state/tls"
[ -f complete ] && exit 0
# RSA: libvirt 9.0 refuses to start with EC keys ("usage does not permit key encipherment").
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 3650 -subj "/CN=drover lab CA" \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
issue() { # issue NAME SUBJECT EXTENSIONS
  openssl req -new -key lab.key -subj "/CN=$2" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -out "$1.pem" \
    -extfile <(printf '%s\n' "basicConstraints=CA:FALSE" "keyUsage=critical,digitalSignature,keyEncipherment" "$3") 2>/dev/null
  cp lab.key "$1.key"
  rm "$1.csr"
}
openssl genrsa -out lab.key 2048 2>/dev/null # one key for all: this is a test world, and each costs time
issue client "drover lab client" "extendedKeyUsage=clientAuth"
for host; do
  number=$(($(printf %d "'$host") - 96))
  issue "$host" "host-$host" "extendedKeyUsage=serverAuth,clientAuth
subjectAltName=DNS:host-$host,DNS:kvm-$host,IP:10.77.0.$number"
done
touch complete
