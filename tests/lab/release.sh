#!/bin/bash
# Another release's libvirt and QEMU, unpacked and not installed: nothing of them runs or is visible on this machine, lab
# hosts lay them over /usr.
#
#   release.sh default     the release that the lab uses unless told otherwise
#   release.sh get R       unpacks R where it is not there yet, prints its folder
#   release.sh versions R  what is in it
# R is a Debian suite: bookworm, bookworm-backports, trixie, ...
#
# The default on bookworm is bookworm-backports (libvirt 11.3, QEMU 10.0): bookworm's own QEMU 7.2 corrupts guests that
# are live-migrated under software emulation. Newer Debian's own are good.
# Kept in ${DROVER_LAB_CACHE:-/var/cache/drover-lab}/suites between runs. Needs root, and Debian on amd64.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
CACHE=${DROVER_LAB_CACHE:-/var/cache/drover-lab}
PACKAGES="libvirt-daemon-system libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 qemu-utils
  dnsmasq-base openssh-server"
# Tells of bridges and their MTU. A package of its own in newer releases, a part of libvirt-daemon in older ones.
INTERFACES=libvirt-daemon-driver-interface
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

fail() {
  echo "release: $*" >&2
  exit 1
}

codename() {
  local ID="" VERSION_CODENAME=""
  . /etc/os-release
  [ "$ID" = debian ] || fail "the lab needs Debian (bookworm or newer) for its packages; this is ${PRETTY_NAME:-$ID}"
  echo "${VERSION_CODENAME:-sid}"
}

default_release() {
  local code
  code=$(codename)
  if [ "$code" = bookworm ]; then echo bookworm-backports; else echo "$code"; fi
}

# The mirror that this machine uses, from deb822 or one-line sources.
mirror() {
  local uri
  uri=$(cat /etc/apt/sources.list.d/*.sources 2>/dev/null |
    awk 'tolower($1) == "uris:" && $2 !~ /security/ {print $2; exit}') || true
  [ -n "$uri" ] || uri=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
    awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^(https?|file|ftp|mirror.*):/) { if ($i !~ /security/ && $(i+2) ~ /main/) { print $i; exit } } }') || true
  [ -n "$uri" ] || { echo "release.sh: apt has no source of Debian packages (/etc/apt/sources.list, sources.list.d)" >&2; return 1; }
  echo "$uri"
}

# Runs a script in a mount namespace of its own in which the folder is laid over /usr.
inside() {
  local dir=$1
  DROVER_LAB_OUTSIDE=$(readlink /proc/self/ns/mnt) unshare --mount bash -euc '. "$1/lay-over.sh"; lay_over "$2"; '"$2" - "$HERE" "$dir"
}

# Whether the unpacked programs find all their libraries on this machine as it is now.
is_sound() {
  [ -f "$1/done" ] || return 1
  [ -n "$(find "$1/usr/lib" -path '*/connection-driver/libvirt_driver_interface.so' -print -quit)" ] || return 1
  inside "$1" 'for p in libvirtd virsh qemu-system-x86_64 qemu-img; do $p --version; done' >/dev/null 2>&1
}

# Parts of libvirt and QEMU that this machine has installed in the very version of the suite: apt would leave them out, but
# the folders that they are in are hidden below.
installed_alike() {
  local package version
  dpkg-query -W -f='${Package} ${Version} ${Status}\n' 'libvirt*' 'qemu*' seabios ipxe-qemu 2>/dev/null |
    while read -r package version _ _ status; do
      case $package in *-dev | *-doc) continue ;; esac
      [ "$status" = installed ] || continue
      if apt-cache "${options[@]}" show "$package=$version" >/dev/null 2>&1; then echo "$package"; fi
    done
}

# The package, where the suite has it.
offered() {
  if apt-cache "${options[@]}" show "$1" >/dev/null 2>&1; then echo "$1"; fi
}

get() {
  local suite=$1 dir=$CACHE/suites/$1 work suites options attempt deb
  case $suite in "" | *[!a-z0-9-]*) fail "\`$suite\` is not the name of a Debian suite" ;; esac
  [ "$(id -u)" = 0 ] || fail "unpacking a release needs root"
  mkdir -p "$CACHE/suites"
  exec 8>"$CACHE/suites/lock"
  flock -w 900 8 || fail "another release.sh has been at work in $CACHE for 15 minutes"
  if is_sound "$dir"; then
    echo "$dir"
    return
  fi
  work=$CACHE/suites/.$suite.new
  # A lab that runs may still have the old one over its /usr: it goes a day later.
  find "$CACHE/suites" -maxdepth 1 -name '.old-*' -mmin +1440 -exec rm -rf {} +
  if [ -d "$dir" ]; then
    mv "$dir" "$CACHE/suites/.old-$suite-$(date +%s)"
    touch "$CACHE/suites/.old-$suite-"*
  fi
  rm -rf "$work"
  trap 'rm -rf "'"$work"'"' EXIT
  mkdir -p "$work"/apt/{lists/partial,cache/archives/partial} "$work"/{x,usr}
  case $suite in
    *-backports) suites="${suite%-backports} ${suite%-backports}-updates $suite" ;;
    sid) suites=sid ;;
    *) suites="$suite $suite-updates" ;;
  esac
  printf '%s\n' "Types: deb" "URIs: $(mirror)" "Suites: $suites" "Components: main" "Signed-By: $KEYRING" >"$work/apt/release.sources"
  [ -f "$KEYRING" ] || sed -i /^Signed-By/d "$work/apt/release.sources"
  options=(-o Dir::Etc::sourcelist="$work/apt/release.sources" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::State::lists="$work/apt/lists" -o Dir::Cache="$work/apt/cache" -o APT::Sandbox::User=root
    -o Acquire::Retries=5 -o APT::Keep-Downloaded-Packages=true)
  for attempt in 1 2 3; do
    if apt-get "${options[@]}" -qq update >&2 &&
      apt-get "${options[@]}" -qq -y --download-only --reinstall --allow-downgrades --no-install-recommends -t "$suite" \
        install $PACKAGES $(offered "$INTERFACES") $(installed_alike) >/dev/null; then
      break
    fi
    [ $attempt = 3 ] && fail "could not get libvirt and QEMU of $suite from $(mirror)"
    sleep $((attempt * 5))
  done
  for deb in "$work"/apt/cache/archives/*.deb; do dpkg-deb -x "$deb" "$work/x"; done
  if [ -d "$work/x/usr" ]; then cp -a "$work/x/usr/." "$work/usr/"; fi
  for d in lib bin sbin lib64; do # before Debian merged them into /usr
    if [ -d "$work/x/$d" ]; then mkdir -p "$work/usr/$d" && cp -a "$work/x/$d/." "$work/usr/$d/"; fi
  done
  rm -rf "$work/x" "$work/apt"
  touch "$work/done"
  mv "$work" "$dir"
  is_sound "$dir" || {
    rm -f "$dir/done"
    fail "libvirt and QEMU of $suite do not start on this machine: libraries are missing in $dir/usr"
  }
  echo "$dir"
}

case ${1:-} in
  default) default_release ;;
  get) get "${2:?release}" ;;
  versions) inside "$(get "${2:?release}")" 'libvirtd --version; qemu-system-x86_64 --version | head -1' ;;
  *)
    sed -n '2,/^set -/p' "$HERE/release.sh" | grep '^#' | sed 's/^# \{0,1\}//' >&2
    exit 64
    ;;
esac
