#!/bin/bash
# Makes a machine out of fresh namespaces, then starts its daemons: host-init.sh HOST STATE RELEASE.
# Runs inside the mount, UTS, IPC and network namespaces of HOST (a hypervisor also has its own PIDs). RELEASE is a
# folder with another release's libvirt and QEMU to lay over /usr, or empty.
set -euo pipefail
host=$1 state=$2 release=${3:-}
here=$(cd "$(dirname "$0")" && pwd)
dir=$state/hosts/$host
number=$(($(printf %d "'$host") - 96))
. "$here/lay-over.sh"
require_own_namespace
trap 'touch "$dir/failed"' ERR
rm -f "$dir/failed"

# ---- the file system
mount --make-rprivate /
mount -t sysfs sysfs /sys 2>/dev/null || true # shows this network namespace's devices
mkdir -p "$dir"/{lib,log,cache,local}
if [ -n "$release" ]; then lay_over "$release"; fi
# A copy on disk, not in memory: definitions and images must outlive a crash of the host.
if [ ! -d "$dir/etc" ]; then
  cp -a /etc "$dir/etc.new"
  rm -rf "$dir/etc.new/libvirt" # this machine's networks and guests, if it has any
  mv "$dir/etc.new" "$dir/etc"
fi
mount --bind "$dir/etc" /etc
for d in lib log cache; do
  mkdir -p /var/$d/libvirt
  mount --bind "$dir/$d" /var/$d/libvirt
done
# /srv/shared is the same on all hosts, /srv/local is the host's own, /srv/guest has the guest's kernel.
mount -t tmpfs -o mode=755 tmpfs /srv
mkdir /srv/{shared,local,guest}
mount --bind "$state/shared" /srv/shared
mount --bind "$dir/local" /srv/local
mount --bind "$state/guest" /srv/guest
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/libvirt /run/sshd /run/lock /run/user/0

# ---- names
hostname "host-$host"
echo "host-$host" >/etc/hostname
{
  echo "127.0.0.1 localhost"
  for h in a b c d e f g h i; do echo "10.77.0.$(($(printf %d "'$h") - 96)) host-$h kvm-$h"; done
} >/etc/hosts
# No DNS: the time-out of a resolver that is not there costs 10 s at each migration.
rm -f /etc/resolv.conf # often a link out of /etc
: >/etc/resolv.conf
sed -i 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf
printf '%032x\n' $((0xd0 + number)) >/etc/machine-id
# Packages that were unpacked and not installed have made no users.
grep -q '^libvirt-qemu:' /etc/passwd || echo 'libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin' >>/etc/passwd
for g in kvm:64054 libvirt:64053 libvirt-qemu:64055; do
  grep -q "^${g%:*}:" /etc/group || echo "${g%:*}:x:${g#*:}:" >>/etc/group
done
grep -q '^sshd:' /etc/passwd || echo 'sshd:x:64052:65534::/run/sshd:/usr/sbin/nologin' >>/etc/passwd

# ---- /dev without kvm: one that is there and does not work makes libvirt distrust its capability cache and probe QEMU
# again at each start and each incoming migration, 10 s and more each time
if [ "${DROVER_LAB_KVM:-0}" != 1 ] && [ "$host" != c ]; then
  dev=$dir/dev
  mkdir -p "$dev"
  mount -t tmpfs -o mode=755,dev tmpfs "$dev"
  mkdir -p "$dev"/{pts,shm,net,mqueue}
  for node in null zero full random urandom tty ptmx fuse loop-control; do
    if [ -e /dev/$node ]; then cp -a /dev/$node "$dev/"; fi
  done
  if [ -e /dev/net/tun ]; then cp -a /dev/net/tun "$dev/net/"; else mknod "$dev/net/tun" c 10 200; fi
  mount --bind /dev/pts "$dev/pts"
  mount -t tmpfs tmpfs "$dev/shm"
  ln -s /proc/self/fd "$dev/fd"
  for i in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${i%:*}" "$dev/${i#*:}"; done
  mount --move "$dev" /dev 2>/dev/null || mount --rbind "$dev" /dev
fi

# ---- ssh: root, with the lab's key only
rm -f /etc/ssh/sshd_config.d/* /etc/ssh/ssh_config.d/*
mkdir -p /etc/ssh
cat >/etc/ssh/sshd_config <<S
Port 22
HostKey $state/ssh/host_key
AuthorizedKeysFile $state/ssh/client_key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile /run/sshd.pid
MaxStartups 100
S
# OpenSSH 9.8 and later shut out, for 15 seconds and more, an address that often hangs up before it is let in, which is what
# programs that are killed do; here all of them have one address. Older ones do not know the word.
penalties=$(/usr/sbin/sshd -T 2>/dev/null | grep -i '^persourcepenalties') || true
[ -z "$penalties" ] || echo 'PerSourcePenalties no' >>/etc/ssh/sshd_config
cat >/etc/ssh/ssh_config <<S
Host *
  IdentityFile $state/ssh/client_key
  UserKnownHostsFile $state/ssh/known_hosts
  StrictHostKeyChecking yes
  LogLevel ERROR
S
/usr/sbin/sshd

# ---- certificates, for libvirt and for QEMU
mkdir -p /etc/pki/CA /etc/pki/libvirt/private /etc/pki/qemu
cp "$state/tls/ca.pem" /etc/pki/CA/cacert.pem
cp "$state/tls/$host.pem" /etc/pki/libvirt/servercert.pem
cp "$state/tls/$host.key" /etc/pki/libvirt/private/serverkey.pem
cp "$state/tls/client.pem" /etc/pki/libvirt/clientcert.pem
cp "$state/tls/client.key" /etc/pki/libvirt/private/clientkey.pem
cp "$state/tls/ca.pem" /etc/pki/qemu/ca-cert.pem
cp "$state/tls/$host.pem" /etc/pki/qemu/server-cert.pem
cp "$state/tls/$host.key" /etc/pki/qemu/server-key.pem
cp "$state/tls/client.pem" /etc/pki/qemu/client-cert.pem
cp "$state/tls/client.key" /etc/pki/qemu/client-key.pem

if [ "$host" = c ]; then
  setsid python3 "$here/heartbeat-collector.py" "$state/heartbeats.log" "$dir/ready" </dev/null &
  exit 0
fi

# ---- libvirt
mkdir -p /etc/libvirt/qemu /var/lib/libvirt/images
cat >/etc/libvirt/libvirtd.conf <<S
listen_tls = 1
listen_tcp = 1
listen_addr = "0.0.0.0"
auth_tcp = "none"
auth_tls = "none"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
host_uuid = "00000000-0000-4000-8000-0000000000$(printf %02x $((0xd0 + number)))"
keepalive_interval = 5
keepalive_count = 5
log_filters = "1:qemu.qemu_migration 3:qemu 3:util 3:rpc"
log_outputs = "1:file:/var/log/libvirt/libvirtd.log"
S
cat >/etc/libvirt/qemu.conf <<S
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
swtpm_user = "root"
swtpm_group = "root"
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
migration_port_min = 49152
migration_port_max = 49215
keepalive_interval = 5
keepalive_count = 5
S
# Releases that know the setting take our word that a folder is shared; the others call it unsafe to migrate from it.
if grep -qs shared_filesystems /usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so; then
  echo 'shared_filesystems = [ "/srv/shared" ]' >>/etc/libvirt/qemu.conf
fi
"$here/libvirt-daemon.sh" start
touch "$dir/ready"
