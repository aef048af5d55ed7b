# shellcheck shell=bash
# Sourced. What changes mounts must never do so in this machine's own mount namespace: whoever makes a namespace for it sets
# DROVER_LAB_OUTSIDE to `readlink /proc/self/ns/mnt` first. Without that proof nothing is done.
require_own_namespace() {
  local here
  here=$(readlink /proc/self/ns/mnt) || here=""
  case $here in
    mnt:*) [ -n "${DROVER_LAB_OUTSIDE:-}" ] && [ "$here" != "$DROVER_LAB_OUTSIDE" ] && return 0 ;;
  esac
  echo "this changes mounts and is not in a mount namespace of its own; use lab.sh" >&2
  return 1
}

# lay_over DIR: lays an unpacked release (release.sh) over /usr.
lay_over() {
  local modules
  require_own_namespace || return 1
  mount --make-rprivate /
  mount -t overlay overlay -o "lowerdir=$1/usr:/usr" /usr
  # Not merged with this machine's own driver and device modules: mixed with other binaries they crash both daemons.
  for modules in "$1"/usr/lib/*-linux-gnu*/libvirt "$1"/usr/lib/*-linux-gnu*/qemu; do
    mount --bind "$modules" "${modules#"$1"}"
  done
}
