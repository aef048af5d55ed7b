#!/bin/bash
# A test world: KVM hosts (libvirt and QEMU under software emulation) and a client machine, as namespaces of this machine.
#
#   lab.sh up [--hosts N] [--release R | --release a=R,b=R]
#                              start hosts a, b (N of them: a b d e ...) and the client c; what runs already stays
#   lab.sh down [--purge]      end everything that `up` started; --purge also deletes the state folder
#   lab.sh in H CMD...         run CMD inside host H           lab.sh shell H    a shell there
#   lab.sh virsh H ARGS...     virsh on host H's own daemon
#   lab.sh uri H [tcp|tls|ssh] the URI of host H (default tcp)
#   lab.sh cut H [PEER]        take H's management link down; with PEER: only H and PEER lose each other
#   lab.sh heal H [PEER]       undo it
#   lab.sh rate H KBIT|off     limit H's management link, both directions
#   lab.sh daemon H start|stop|kill|pause|cont|restart      H's libvirt daemon
#   lab.sh crash H             the host dies at once, with all its VMs      lab.sh host H    it boots again
#   lab.sh gap NAME|PORT [SINCE]   what was heard of a guest from outside: heartbeats, longest silence (JSON)
#   lab.sh status | hosts | path   what runs; the hosts' names; the state folder
#   lab.sh reap                waits for the end of standard input, then `down --purge` (a test run's safety net)
#
# Environment:
#   DROVER_LAB_STATE   the state folder, everything a lab writes is in it   (${TMPDIR:-/tmp}/drover-lab)
#   DROVER_LAB_PREFIX  prefix of its network namespaces                     (made from the state folder)
#   DROVER_LAB_CACHE   unpacked releases and the guest image, kept between runs   (/var/cache/drover-lab)
# Labs with different state folders do not see each other: addresses and ports are inside the namespaces.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
STATE=${DROVER_LAB_STATE:-${TMPDIR:-/tmp}/drover-lab}
CACHE=${DROVER_LAB_CACHE:-/var/cache/drover-lab}
PREFIX=${DROVER_LAB_PREFIX:-drv$(printf %s "$STATE" | md5sum | cut -c1-6)}
ALL_HOSTS="a b d e f g h i" # c is the client
DROVER_LAB_OUTSIDE=$(readlink /proc/self/ns/mnt) # lay-over.sh
export DROVER_LAB_OUTSIDE DROVER_LAB_STATE=$STATE DROVER_LAB_CACHE=$CACHE DROVER_LAB_PREFIX=$PREFIX

fail() {
  echo "lab: $*" >&2
  exit 1
}

number() { echo $(($(printf %d "'$1") - 96)); } # a is 1, b is 2, ...
netns() { ip netns exec "$PREFIX-$1" "${@:2}"; }
has_netns() { [ -e "/run/netns/$PREFIX-$1" ]; }
pid_of() { cat "$STATE/hosts/$1/pid" 2>/dev/null; }

is_alive() {
  local pid
  pid=$(pid_of "$1") && [ -n "$pid" ] && [ "$(readlink "/proc/$pid/exe" 2>/dev/null)" = "$STATE/bin/pid1" ]
}

# The client has no PID namespace of its own: a program started there keeps its pid, and signals reach it.
inside() {
  local host=$1 flags=(-m -u -n -p -i)
  shift
  is_alive "$host" || fail "host $host is not running (lab.sh host $host)"
  [ "$host" = c ] && flags=(-m -u -n -i)
  nsenter -t "$(pid_of "$host")" "${flags[@]}" -- "$@"
}

known() {
  case " c $(cat "$STATE/names" 2>/dev/null) " in
    *" $1 "*) ;;
    *) fail "there is no host \`$1\` in this lab: it has c $(cat "$STATE/names" 2>/dev/null)" ;;
  esac
}

require_root() { [ "$(id -u)" = 0 ] || fail "namespaces need root"; }

# One `up` or `down` at a time for a state folder; the lock must not be inherited by what they start.
lock() {
  mkdir -p "$STATE"
  exec 9>"$STATE/lock"
  flock -w 300 9 || fail "another lab.sh has been at work in $STATE for 5 minutes"
}

prepare_files() {
  local image file
  mkdir -p "$STATE"/{hosts,shared,bin,guest}
  [ -x "$STATE/bin/pid1" ] || gcc -O2 -static -o "$STATE/bin/pid1" "$HERE/pid1.c"
  "$HERE/credentials.sh" "$STATE" c $ALL_HOSTS
  image=$("$HERE/guest/build.sh" "$CACHE/guest")
  for file in vmlinuz initrd.gz; do
    cmp -s "$image/$file" "$STATE/guest/$file" || cp --reflink=auto "$image/$file" "$STATE/guest/"
  done
}

# Two switches in a namespace of their own: `mgmt` carries libvirt and migrations, `guests` the guests' network.
network_up() {
  local host bridge
  has_netns sw || ip netns add "$PREFIX-sw"
  for bridge in mgmt guests; do
    netns sw ip link show $bridge >/dev/null 2>&1 || netns sw ip link add $bridge type bridge
    netns sw ip link set $bridge up
  done
  for host in "$@"; do
    has_netns "$host" || ip netns add "$PREFIX-$host"
    if ! netns "$host" ip link show eth0 >/dev/null 2>&1; then
      netns sw ip link add "m-$host" type veth peer name eth0 netns "$PREFIX-$host"
      netns sw ip link set "m-$host" master mgmt up
      netns "$host" ip addr add "10.77.0.$(number "$host")/24" dev eth0
      netns "$host" ip link set eth0 up
      netns "$host" ip link set lo up
    fi
    if [ "$host" != c ] && ! netns "$host" ip link show br0 >/dev/null 2>&1; then
      netns sw ip link add "g-$host" type veth peer name eth1 netns "$PREFIX-$host"
      netns sw ip link set "g-$host" master guests up
      netns "$host" ip link add br0 type bridge
      netns "$host" ip link set eth1 master br0 up
      netns "$host" ip link set br0 up
    fi
  done
}

start_host() {
  local host=$1 dir=$STATE/hosts/$1 release outer pid=
  is_alive "$host" && return 0
  mkdir -p "$dir"
  rm -f "$dir/ready"
  release=$(cat "$dir/release" 2>/dev/null || true)
  if [ "$host" = c ]; then
    setsid nsenter --net="/run/netns/$PREFIX-c" unshare --mount --uts --ipc \
      "$STATE/bin/pid1" "$HERE/host-init.sh" c "$STATE" "" </dev/null >>"$dir/console.log" 2>&1 9>&- &
    pid=$!
  else
    # The child that unshare forks is PID 1 of the new namespace: killing it ends the whole host.
    setsid nsenter --net="/run/netns/$PREFIX-$host" unshare --mount --uts --ipc --pid --fork --mount-proc --kill-child \
      "$STATE/bin/pid1" "$HERE/host-init.sh" "$host" "$STATE" "$release" </dev/null >>"$dir/console.log" 2>&1 9>&- &
    outer=$!
    for _ in $(seq 100); do
      pid=$(pgrep -P $outer | head -1) && [ "$(readlink "/proc/$pid/exe")" = "$STATE/bin/pid1" ] && break
      pid=
      kill -0 $outer 2>/dev/null || break
      sleep 0.05
    done
    [ -n "$pid" ] || fail "host $host did not start: see $dir/console.log"
  fi
  disown
  echo "$pid" >"$dir/pid"
}

wait_ready() {
  local host=$1 dir=$STATE/hosts/$1
  for _ in $(seq 1200); do
    [ -f "$dir/ready" ] && return 0
    is_alive "$host" && [ ! -f "$dir/failed" ] || break
    sleep 0.1
  done
  tail -n 20 "$dir/console.log" >&2 || true
  fail "host $host did not get ready: see $dir/console.log"
}

# Everything in the host's network namespace ends; nothing but this lab's own processes can be in it.
stop_host() {
  local host=$1 pid pids
  has_netns "$host" || return 0
  if is_alive "$host"; then kill -KILL "$(pid_of "$host")" 2>/dev/null || true; fi
  for _ in $(seq 100); do
    pids=$(ip netns pids "$PREFIX-$host" 2>/dev/null || true)
    [ -n "$pids" ] || break
    for pid in $pids; do kill -KILL "$pid" 2>/dev/null || true; done
    sleep 0.05
  done
  rm -f "$STATE/hosts/$host"/{pid,ready,failed}
}

up() {
  local count=2 spec="" default running item host names release
  while [ $# -gt 0 ]; do
    case $1 in
      --hosts) count=${2:?--hosts needs a number} && shift 2 ;;
      --release) spec=${2:?--release needs a name} && shift 2 ;;
      *) fail "up: what is \`$1\`?" ;;
    esac
  done
  case $count in [1-8]) ;; *) fail "1 to 8 hosts, not $count" ;; esac
  require_root
  lock
  default=$("$HERE/release.sh" default)
  names=$(echo $ALL_HOSTS | cut -d' ' -f1-"$count")
  echo "$names" >"$STATE/names"
  prepare_files
  for host in $names; do
    release=""
    for item in ${spec//,/ }; do
      case $item in "$host="*) release=${item#*=} ;; *=*) ;; *) release=$item ;; esac
    done
    mkdir -p "$STATE/hosts/$host"
    running=$(basename "$(cat "$STATE/hosts/$host/release" 2>/dev/null)")
    if ! is_alive "$host"; then
      "$HERE/release.sh" get "${release:-$default}" >"$STATE/hosts/$host/release"
    elif [ -n "$release" ] && [ "$release" != "$running" ]; then
      fail "host $host runs with $running, not $release: take the lab down first"
    fi
  done
  network_up c $names
  for host in c $names; do start_host "$host"; done
  for host in c $names; do wait_ready "$host"; done
}

down() {
  local host
  require_root
  [ -d "$STATE" ] || return 0
  lock
  for host in c $(cat "$STATE/names" 2>/dev/null || true); do stop_host "$host"; done
  for host in c $(cat "$STATE/names" 2>/dev/null || true) sw; do
    if has_netns "$host"; then ip netns del "$PREFIX-$host"; fi
  done
  if [ "${1:-}" = --purge ]; then rm -rf --one-file-system "$STATE"; fi
}

link() { # link H up|down [PEER]
  local host=$1 state=$2 peer=${3:-} pair
  known "$host"
  if [ -z "$peer" ]; then
    netns sw ip link set "m-$host" "$state"
    return
  fi
  known "$peer"
  for pair in "$host $peer" "$peer $host"; do
    set -- $pair
    # A neighbour entry that nobody answers to: frames vanish, as with a dead path between two switches.
    if [ "$state" = down ]; then
      netns "$1" ip neigh replace "10.77.0.$(number "$2")" lladdr 02:00:00:00:de:ad dev eth0 nud permanent
    else
      netns "$1" ip neigh del "10.77.0.$(number "$2")" dev eth0 2>/dev/null || true
    fi
  done
}

rate() { # rate H KBIT|off
  local where
  known "$1"
  for where in "$1 eth0" "sw m-$1"; do
    netns "${where% *}" tc qdisc del dev "${where#* }" root 2>/dev/null || true
    [ "$2" = off ] && continue
    netns "${where% *}" tc qdisc add dev "${where#* }" root handle 1: htb default 1
    netns "${where% *}" tc class add dev "${where#* }" parent 1: classid 1:1 htb rate "${2}kbit" burst 256k
  done
}

status() {
  local host
  for host in c $(cat "$STATE/names" 2>/dev/null || true); do
    if ! is_alive "$host"; then
      echo "host-$host down"
    elif [ "$host" = c ]; then
      echo "host-c up (client), pid $(pid_of c)"
    else
      echo "host-$host up, pid $(pid_of "$host"), $(inside "$host" sh -c 'libvirtd --version; qemu-system-x86_64 --version | head -1' 2>/dev/null | tr '\n' ' ')"
      inside "$host" timeout 20 virsh -q -c qemu:///system list --all || true
    fi
  done
}

uri() {
  known "$1"
  case ${2:-tcp} in
    tcp | tls) echo "qemu+${2:-tcp}://host-$1/system" ;;
    ssh) echo "qemu+ssh://root@host-$1/system" ;;
    *) fail "transport \`$2\` is not tcp, tls or ssh" ;;
  esac
}

case ${1:-} in
  up | down) "$@" ;;
  in) shift && known "$1" && inside "$@" ;;
  shell) known "$2" && inside "$2" bash ;;
  virsh) known "$2" && inside "$2" virsh -c qemu:///system "${@:3}" ;;
  uri) uri "${@:2}" ;;
  cut) link "$2" down "${3:-}" ;;
  heal) link "$2" up "${3:-}" ;;
  rate) rate "$2" "$3" ;;
  daemon) known "$2" && inside "$2" "$HERE/libvirt-daemon.sh" "$3" ;;
  crash) known "$2" && stop_host "$2" ;;
  host) known "$2" && network_up "$2" && start_host "$2" && wait_ready "$2" ;;
  gap) python3 "$HERE/heartbeat-gap.py" "$STATE/heartbeats.log" "${@:2}" ;;
  status) status ;;
  hosts) cat "$STATE/names" ;;
  path) echo "$STATE" ;;
  reap)
    cat >/dev/null || true
    down --purge
    ;;
  *)
    sed -n '2,/^set -/p' "$0" | grep '^#' | sed 's/^# \{0,1\}//'
    exit 64
    ;;
esac
