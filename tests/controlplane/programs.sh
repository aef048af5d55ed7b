#!/bin/bash
# Which API server tests run, and where it is. Prints one line: `kube-apiserver FOLDER` or `controlplane FOLDER`; the folder
# has the program of that name and `etcd`.
#
#   programs.sh find   the first of these that is there; never builds; exit 1 with the reason where there is none
#     1. KUBEBUILDER_ASSETS         a folder with kube-apiserver and etcd (the convention of envtest)
#     2. DROVER_TEST_CONTROLPLANE   a folder with controlplane and etcd (or bin/ with them), as programs or as .xz
#     3. a build of these sources in the cache
#   programs.sh get    the same, and where there is none builds it from Debian's packages (build.sh: 5 minutes and more)
#
# A variable that is set and names a folder without these programs is an error: what was asked for is never replaced by
# something else. The cache is ${DROVER_LAB_CACHE:-/var/cache/drover-lab}/controlplane, or below ~/.cache for who may not
# write there.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)

fail() {
  echo "controlplane: $*" >&2
  exit 1
}

cache_folder() {
  local folder
  for folder in "${DROVER_LAB_CACHE:-/var/cache/drover-lab}" "${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/drover-lab"; do
    if mkdir -p "$folder/controlplane" 2>/dev/null && [ -w "$folder/controlplane" ]; then
      echo "$folder/controlplane"
      return
    fi
  done
  fail "no folder for the cache can be written; name one in DROVER_LAB_CACHE"
}

has() { [ -x "$1/$2" ] && [ -x "$1/etcd" ]; }

# What is built is a function of these files; the packages' own versions are not pinned.
stamp() { (cd "$HERE" && cat src/*.go packages.txt build.sh | sha256sum | cut -c1-16); }

# Compressed programs are unpacked once, into a folder named after what they are.
unpacked() {
  local from=$1 cache to program
  cache=$(cache_folder)
  to=$cache/prebuilt-$(cat "$from/controlplane.xz" "$from/etcd.xz" | sha256sum | cut -c1-16)
  if ! has "$to" controlplane; then
    exec 8>"$cache/lock"
    flock -w 300 8 || fail "another programs.sh has been at work in $cache for 5 minutes"
    if ! has "$to" controlplane; then
      rm -rf "$to.new"
      mkdir -p "$to.new"
      for program in controlplane etcd; do
        xz -dc "$from/$program.xz" >"$to.new/$program"
        chmod 755 "$to.new/$program"
      done
      rm -rf "$to"
      mv "$to.new" "$to"
    fi
    exec 8>&-
  fi
  echo "$to"
}

find_programs() {
  local folder cached
  if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
    has "$KUBEBUILDER_ASSETS" kube-apiserver || fail "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS has not both kube-apiserver and etcd"
    echo "kube-apiserver $KUBEBUILDER_ASSETS"
    return
  fi
  if [ -n "${DROVER_TEST_CONTROLPLANE:-}" ]; then
    for folder in "$DROVER_TEST_CONTROLPLANE" "$DROVER_TEST_CONTROLPLANE/bin"; do
      if has "$folder" controlplane; then
        echo "controlplane $folder"
        return
      elif [ -f "$folder/controlplane.xz" ] && [ -f "$folder/etcd.xz" ]; then
        folder=$(unpacked "$folder")
        echo "controlplane $folder"
        return
      fi
    done
    fail "DROVER_TEST_CONTROLPLANE=$DROVER_TEST_CONTROLPLANE has neither controlplane and etcd nor their .xz, nor has its bin/"
  fi
  cached=$(cache_folder)/built-$(stamp)
  has "$cached" controlplane || return 1
  echo "controlplane $cached"
}

case ${1:-} in
  find)
    find_programs || fail "there is no API server for tests: run scripts/setup.sh as root on Debian (amd64), or set KUBEBUILDER_ASSETS (tests/controlplane/README.md)"
    ;;
  get)
    if ! found=$(find_programs); then
      [ -z "${KUBEBUILDER_ASSETS:-}${DROVER_TEST_CONTROLPLANE:-}" ] || exit 1 # said above
      cache=$(cache_folder)
      exec 9>"$cache/build.lock"
      flock -w 1800 9 || fail "another build has been at work in $cache for half an hour"
      if ! found=$(find_programs); then
        echo "controlplane: building an API server for tests from Debian's packages, once: 5 minutes on two idle cores, 10 to 18 on busy ones" >&2
        "$HERE/build.sh" "$cache/built-$(stamp)" >&2 9>&- || fail "the API server for tests could not be built (above); tests with clusters will be skipped"
        found=$(find_programs)
      fi
    fi
    echo "$found"
    ;;
  *)
    sed -n '2,/^set -/p' "$0" | grep '^#' | sed 's/^# \{0,1\}//' >&2
    exit 64
    ;;
esac
