#!/bin/bash
# Builds OUT/vmlinuz and OUT/initrd.gz, the guest that the lab boots: Debian's cloud kernel, busybox, and the workload.
# usage: guest/build.sh OUT      Nothing to do when both are newer than what they are made of.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:?folder}"
out=$(cd "$1" && pwd)

is_fresh() {
  local source
  [ -s "$out/vmlinuz" ] && [ -s "$out/initrd.gz" ] || return 1
  for source in workload.c init build.sh; do cmp -s "$here/$source" "$out/sources/$source" || return 1; done
}

is_fresh && exit 0
exec 7>"$out/lock"
flock -w 600 7 || {
  echo "guest: another build has been at work in $out for 10 minutes" >&2
  exit 1
}
is_fresh && exit 0
work=$(mktemp -d "$out/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
if ! ls "$out"/linux-image-*.deb >/dev/null 2>&1; then
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
  mv linux-image-*.deb "$out/"
fi
dpkg-deb -x "$out"/linux-image-*.deb kernel
mkdir -p root/bin root/modules
cp "$(command -v busybox)" root/bin/busybox
ln -s busybox root/bin/sh
install -m 755 "$here/init" root/init
gcc -O2 -static -o root/workload "$here/workload.c"
: >root/modules/order
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk failover net_failover \
  virtio_net virtio_balloon; do # in this order: each needs those before it
  file=$(find kernel -name "$module.ko" -o -name "$module.ko.xz" | head -1)
  [ -n "$file" ] || continue # built into this kernel
  cp "$file" root/modules/
  if [ "${file##*.}" = xz ]; then xz -d "root/modules/$module.ko.xz"; fi # trixie compresses them; busybox insmod does not
  echo "$module.ko" >>root/modules/order
done
(cd root && find . | sort | cpio -o -H newc --quiet | gzip -9n) >initrd.gz
cp kernel/boot/vmlinuz-* vmlinuz
mv initrd.gz vmlinuz "$out/"
mkdir -p "$out/sources"
cp "$here"/{workload.c,init,build.sh} "$out/sources/"
