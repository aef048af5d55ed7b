#!/bin/bash
# Builds the test control plane from Debian's packages of Go and of Kubernetes' libraries.
#
#   build.sh OUT    makes the folder OUT with the programs `controlplane` and `etcd`
#
# About 95 MB of downloads and 2.2 GB of work folder (beside OUT, deleted afterwards); 5 minutes on two idle cores, 10 on
# busy ones. The packages are those of sid (no other suite has a set that fits: README.md), unpacked into the work folder:
# nothing is installed, no maintainer script runs, apt's own lists are untouched.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
OUT=${1:?usage: build.sh OUT}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

fail() {
  echo "controlplane build: $*" >&2
  exit 1
}

# The mirror that this machine uses, from deb822 or one-line sources.
mirror() {
  local uri
  uri=$(cat /etc/apt/sources.list.d/*.sources 2>/dev/null |
    awk 'tolower($1) == "uris:" && $2 !~ /security/ {print $2; exit}') || true
  [ -n "$uri" ] || uri=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
    awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^(https?|file|ftp|mirror.*):/) { if ($i !~ /security/ && $(i+2) ~ /main/) { print $i; exit } } }') || true
  [ -n "$uri" ] || fail "apt has no source of Debian packages (/etc/apt/sources.list, sources.list.d)"
  echo "$uri"
}

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "this needs Debian's apt-get and dpkg-deb"
[ "$(dpkg --print-architecture)" = amd64 ] || fail "only amd64 was tried; this is $(dpkg --print-architecture)"
[ -f "$KEYRING" ] || fail "$KEYRING is missing (package debian-archive-keyring)"

mkdir -p "$(dirname "$OUT")"
work=$(mktemp -d "$(dirname "$OUT")/.build.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
mkdir -p "$work"/{apt/lists/partial,apt/cache/archives/partial,debs,prefix,deps,gopath/src/controlplane/openapi,out}

echo "deb [signed-by=$KEYRING] $(mirror) sid main" >"$work/apt/sources.list"
options=(-q -o "Dir::Etc::sourcelist=$work/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache" -o APT::Sandbox::User=root -o Acquire::Retries=5
  -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
for attempt in 1 2 3; do
  if apt-get "${options[@]}" update && (cd "$work/debs" && xargs apt-get "${options[@]}" download <"$HERE/packages.txt"); then
    break
  fi
  [ $attempt = 3 ] && fail "could not get the packages of packages.txt from sid"
  sleep $((attempt * 5))
done
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/prefix"; done

GOROOT=$(echo "$work"/prefix/usr/lib/go-1.*)
ln -s "$work/prefix/usr/share/gocode/src" "$work/deps/src"
export GOROOT PATH="$GOROOT/bin:$PATH" GO111MODULE=off GOFLAGS="" GOTOOLCHAIN=local CGO_ENABLED=0
export GOCACHE=$work/gocache GOPATH=$work/gopath:$work/deps
cd "$work/gopath/src/controlplane"
cp "$HERE"/src/*.go .

# Server-side apply is refused without the OpenAPI definitions of the built-in types.
: >"$work/header.txt"
api=k8s.io/api
machinery=k8s.io/apimachinery/pkg
"$work/prefix/usr/bin/openapi-gen" --go-header-file "$work/header.txt" --output-dir openapi \
  --output-pkg controlplane/openapi --output-file zz_generated.openapi.go --report-filename /dev/null \
  $api/{core,apps,batch,rbac,coordination,networking,storage,events,policy,authentication,authorization,admissionregistration,autoscaling}/v1 \
  $machinery/apis/meta/v1 $machinery/runtime $machinery/version $machinery/api/resource $machinery/util/intstr

absent=$(go list -deps -e -f '{{if .Error}}{{.ImportPath}}{{end}}' controlplane)
[ -z "$absent" ] || fail "sid's packages no longer bring: $absent
  (a package was split or renamed: add its new name to tests/controlplane/packages.txt)"

version=$(dpkg-deb -f "$work"/debs/golang-k8s-apiserver-dev_*.deb Version | sed 's/^0\./v1./; s/-.*//')
package=k8s.io/component-base/version
go build -p 2 -o "$work/out/controlplane" \
  -ldflags "-s -w -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$(echo "$version" | cut -d. -f2)" \
  controlplane
cp "$work/prefix/usr/bin/etcd" "$work/out/etcd"
"$work/out/etcd" --version >/dev/null || fail "sid's etcd does not run on this machine (it needs glibc 2.34)"
rm -rf "$OUT"
mv "$work/out" "$OUT"
echo "controlplane $version built into $OUT"
