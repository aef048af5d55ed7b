#!/bin/bash
# Builds the guest that the lab boots: Debian's cloud kernel, busybox, the workload and the agent.
# usage: guest/build.sh CACHE     Prints the folder that has vmlinuz and initrd.gz. It is named by the sources' digest, so
#                                 that an image is built once; those of other versions lie beside it for two weeks after
#                                 their last use.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
sources=(workload.c agent.c init build.sh)
mkdir -p "${1:?folder}"
cache=$(cd "$1" && pwd)
out=$cache/image-$(cd "$here" && sha256sum "${sources[@]}" | sha256sum | cut -c1-12)

is_there() { [ -s "$out/vmlinuz" ] && [ -s "$out/initrd.gz" ]; }

# Images of other versions that nobody has asked for in two weeks go; a lab has a copy of its own.
hand_over() {
  touch "$out" 2>/dev/null || true
  find "$cache" -maxdepth 1 -type d -name 'image-*' -mtime +13 -exec rm -rf {} + 2>/dev/null || true
  echo "$out" && exit 0
}

is_there && hand_over
exec 7>"$cache/lock"
flock -w 600 7 || {
  echo "guest: another build has been at work in $cache for 10 minutes" >&2
  exit 1
}
is_there && hand_over
work=$(mktemp -d "$cache/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
if ! ls "$cache"/linux-image-*.deb >/dev/null 2>&1; then
  package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2; exit}')
  [ -n "$package" ] || {
    echo "guest: apt knows no linux-image-cloud-amd64; run apt-get update" >&2
    exit 1
  }
  for attempt in 1 2 3; do
    if apt-get -o APT::Sandbox::User=root -o Acquire::Retries=5 -qq download "$package" >&2; then break; fi
    [ $attempt != 3 ] || exit 1
    sleep $((attempt * 5))
    apt-get -qq update >&2 || true # the index may name a version that the mirror has replaced
  done
  mv linux-image-*.deb "$cache/"
fi
dpkg-deb -x "$cache"/linux-image-*.deb kernel
mkdir -p root/bin root/modules
cp "$(command -v busybox)" root/bin/busybox
ln -s busybox root/bin/sh
install -m 755 "$here/init" root/init
for program in workload agent; do gcc -O2 -static -o root/$program "$here/$program.c"; done
: >root/modules/order
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk failover net_failover \
  virtio_net virtio_balloon virtio_console; do # in this order: each needs those before it
  file=$(find kernel -name "$module.ko" -o -name "$module.ko.xz" | head -1)
  [ -n "$file" ] || continue # built into this kernel
  cp "$file" root/modules/
  if [ "${file##*.}" = xz ]; then xz -d "root/modules/$module.ko.xz"; fi # trixie compresses them; busybox insmod does not
  if [ $module = virtio_console ]; then continue; fi # init loads it where it is needed
  echo "$module.ko" >>root/modules/order
done
(cd root && find . | sort | cpio -o -H newc --quiet | gzip -9n) >initrd.gz
cp kernel/boot/vmlinuz-* vmlinuz
mkdir -p "$out"
mv initrd.gz vmlinuz "$out/"
hand_over
