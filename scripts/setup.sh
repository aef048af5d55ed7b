#!/bin/bash
# Sets a Debian machine (bookworm or newer) up for building and testing. Run again at any time: nothing to do costs a second.
#
#   scripts/setup.sh            what the build, the tests and the lab need
#   scripts/setup.sh --build    what the build needs
# As root it installs what is missing; otherwise it says what to install. Elsewhere than on Debian it only says what is
# needed, and there is no lab.
set -euo pipefail
HERE=$(cd "$(dirname "$0")/.." && pwd)
BUILD="gcc make pkg-config libc6-dev libvirt-dev libssl-dev git ca-certificates"
LAB="libvirt-clients qemu-utils openssh-client openssh-server openssl iproute2 iptables procps util-linux busybox-static cpio
  xz-utils gzip python3 curl debian-archive-keyring swtpm swtpm-tools"
RUST_NEEDED=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$HERE/Cargo.toml")

fail() {
  echo "setup: $*" >&2
  exit 1
}

missing() {
  local package
  for package in "$@"; do
    dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null | grep -q ' installed$' || echo "$package"
  done
}

# Packages bring daemons (sshd) that they would start here; the lab starts its own, in its namespaces.
forbid_daemons() {
  [ -e /usr/sbin/policy-rc.d ] && return 0
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
}

install_packages() {
  local attempt
  [ "$(id -u)" = 0 ] || fail "packages are missing; as root: apt-get install --no-install-recommends $(echo "$@")"
  forbid_daemons
  for attempt in 1 2 3; do
    # DPkg::Lock::Timeout waits for an apt that runs already (a fresh machine's own updates).
    if apt-get -qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=5 update &&
      DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=600 -o Acquire::Retries=5 \
        -o Dpkg::Options::=--force-confold --no-install-recommends install "$@" </dev/null >/dev/null; then
      return 0
    fi
    echo "setup: apt failed, attempt $attempt of 3" >&2
    sleep $((attempt * 5))
  done
  fail "could not install: $*"
}

check_rust() {
  local have
  PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin # where rustup puts it
  command -v cargo >/dev/null || fail "cargo is missing. Drover needs Rust $RUST_NEEDED or newer, with rustfmt and clippy:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile default
  (Debian's own rustc is older in bookworm and trixie.)"
  have=$(cargo --version | sed -n 's/^cargo \([0-9]*\.[0-9]*\).*/\1/p')
  if [ "$(printf '%s\n' "$RUST_NEEDED" "$have" | sort -V | head -1)" != "$RUST_NEEDED" ]; then
    fail "Rust $have is too old: Drover needs $RUST_NEEDED or newer (rustup update stable)"
  fi
}

wanted=$BUILD
[ "${1:-}" = --build ] || wanted="$wanted $LAB"
if command -v dpkg-query >/dev/null; then
  absent=$(missing $wanted)
  [ -z "$absent" ] || install_packages $absent
else
  echo "setup: not a Debian machine: packages are not looked at. Needed are the equivalents of: $(echo $wanted)" >&2
fi
check_rust
if [ "${1:-}" != --build ] && [ "$(id -u)" = 0 ] && command -v dpkg-query >/dev/null; then
  cache=${DROVER_LAB_CACHE:-/var/cache/drover-lab}
  "$HERE/tests/lab/release.sh" get "$("$HERE/tests/lab/release.sh" default)" >/dev/null
  # The older one of tests with two releases. Without it those are skipped (or fail, where DROVER_REQUIRE_LAB=1).
  if [ "$("$HERE/tests/lab/release.sh" default)" = bookworm-backports ]; then
    "$HERE/tests/lab/release.sh" get bookworm >/dev/null || true
  fi
  "$HERE/tests/lab/guest/build.sh" "$cache/guest" >/dev/null
  # The API server for tests with clusters. Without one those tests are skipped (or fail, where DROVER_REQUIRE_LAB=1).
  "$HERE/tests/controlplane/programs.sh" get >/dev/null || true
fi
