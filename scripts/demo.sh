#!/bin/bash
# A pushed commit moves a running virtual machine: make demo.
#
# Makes a Git repository from examples/quickstart, starts two libvirt hosts (tests/lab) and Drover's daemon, waits for the
# machine to run on kvm-a, commits `host: kvm-b`, prints the dry run, pushes, and shows what happens. Cleans up in any
# case. Without root or QEMU, or with DROVER_DEMO=simulator, the hosts are simulated (examples/simulator).
set -euo pipefail
HERE=$(cd "$(dirname "$0")/.." && pwd)
cd "$HERE"
MODE=${DROVER_DEMO:-lab}
WORK=$(mktemp -d "${TMPDIR:-/tmp}/drover-demo.XXXXXX")
PORT=8642
DAEMON=
FOLLOW=
export DROVER_LAB_STATE=$WORK/lab
export GIT_AUTHOR_NAME=demo GIT_AUTHOR_EMAIL=demo@example.com GIT_COMMITTER_NAME=demo GIT_COMMITTER_EMAIL=demo@example.com
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
export DROVER_SIM_STATE=$WORK/simulated.json # the daemon and the other commands see the same simulated hosts

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
say() { printf '\n%s==> %s%s\n' "$bold" "$*" "$plain"; }
show() { printf '%s$ %s%s\n' "$dim" "$*" "$plain"; }
fail() {
  echo "demo: $*" >&2
  if [ -s "$WORK/daemon.log" ]; then
    echo "demo: the daemon's last lines:" >&2
    tail -n 30 "$WORK/daemon.log" >&2
    drover status >&2 || true
  fi
  exit 1
}

clean_up() {
  local status=$? pid
  trap - EXIT INT TERM
  for pid in $FOLLOW $DAEMON; do kill "$pid" 2>/dev/null || true; done
  if [ -n "$DAEMON" ]; then
    for _ in $(seq 100); do
      kill -0 "$DAEMON" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$DAEMON" 2>/dev/null || true
  fi
  [ "$MODE" != lab ] || tests/lab/lab.sh down --purge || true
  rm -rf "$WORK"
  exit $status
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

seconds_since() { awk -v a="$1" -v b="$(date +%s.%N)" 'BEGIN {printf "%.1f", b - a}'; }

# wait_for SECONDS WHAT COMMAND...: until the command succeeds
wait_for() {
  local limit=$1 what=$2 start
  start=$(date +%s)
  shift 2
  until "$@"; do
    [ -z "$DAEMON" ] || kill -0 "$DAEMON" 2>/dev/null || fail "the daemon ended"
    [ $(($(date +%s) - start)) -lt "$limit" ] || fail "$what: not within $limit s"
    sleep 0.2
  done
}

# ---- which hosts
if [ "$MODE" = lab ] && [ "$(id -u)" != 0 ]; then
  echo "demo: not root: simulated hosts instead of libvirt and QEMU"
  MODE=simulator
elif [ "$MODE" = lab ] && ! scripts/setup.sh; then
  echo "demo: no libvirt and QEMU here: simulated hosts instead"
  MODE=simulator
fi
case $MODE in lab) example=examples/quickstart ;; simulator) example=examples/simulator ;; *) fail "DROVER_DEMO is lab or simulator, not $MODE" ;; esac

say "Build"
cargo build --quiet
DROVER=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/debug/drover

# In the lab everything of Drover's runs on the client machine, from which the hosts are reached.
drover_command() {
  command=("$DROVER" "$@")
  [ "$MODE" != lab ] || command=(nsenter -t "$(cat "$WORK/lab/hosts/c/pid")" -m -u -n -i -- env -C "$WORK" "${command[@]}")
}
drover() {
  local command
  drover_command "$@"
  "${command[@]}" </dev/null
}
export DROVER_SERVER=http://127.0.0.1:$PORT
if [ "$MODE" = lab ]; then
  say "Two hosts"
  tests/lab/lab.sh up --hosts 2
  tests/lab/lab.sh status | grep '^host-[ab]'
fi

say "A repository: $example"
git init --quiet --bare --initial-branch=main "$WORK/fleet.git"
git init --quiet --initial-branch=main "$WORK/fleet"
cp "$example"/*.yaml "$WORK/fleet/"
fleet() { git -C "$WORK/fleet" "$@"; }
fleet add .
fleet commit --quiet -m "web-1 on kvm-a"
fleet remote add origin "$WORK/fleet.git"
fleet push --quiet origin main
drover validate "$WORK/fleet" || fail "the example is not valid"

say "The daemon"
show "drover daemon --repo fleet.git --branch main --state state --listen 127.0.0.1:$PORT"
drover_command daemon --repo "$WORK/fleet.git" --branch main --state "$WORK/state" --listen "127.0.0.1:$PORT"
"${command[@]}" </dev/null >"$WORK/daemon.log" 2>&1 &
DAEMON=$!

domain() { tests/lab/lab.sh virsh "$1" domstate web-1 2>/dev/null | head -1; }
beats() { tests/lab/lab.sh gap 9001 "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["beats"])'; }
has_beaten() { [ "$(beats "$1")" -ge 5 ]; }
# Whether the daemon has carried the newest commit out completely.
is_settled() {
  drover status -o json 2>/dev/null | python3 -c '
import json, sys
text = sys.stdin.read()
sys.exit(not text or json.loads(text).get("settled") != sys.argv[1])' "$(fleet rev-parse HEAD)"
}
runs_on_b() { [ "$(domain b)" = running ] && [ -z "$(domain a)" ]; }

wait_for 120 "web-1 runs on kvm-a" is_settled
if [ "$MODE" = lab ]; then
  [ "$(domain a)" = running ] || fail "web-1 does not run on kvm-a"
  wait_for 120 "web-1 has booted" has_beaten 0
  tests/lab/lab.sh virsh a -q list --all
fi
drover status

say "A commit"
sed -i 's/host: kvm-a/host: kvm-b/' "$WORK/fleet/machines.yaml"
fleet commit --quiet -am "web-1 moves to kvm-b"
fleet --no-pager show --format='%h %s' --unified=0 HEAD | grep -vE '^(diff|index|---|\+\+\+)'

say "The dry run"
show "drover plan fleet --base HEAD~1 --head HEAD"
drover plan "$WORK/fleet" --base HEAD~1 --head HEAD

say "The push"
pushed=$(date +%s.%N)
log_lines=$(wc -l <"$WORK/daemon.log")
show "git push"
fleet push --quiet origin main
tail -n "+$((log_lines + 1))" -f "$WORK/daemon.log" &
FOLLOW=$!
if [ "$MODE" = lab ]; then
  wait_for 120 "web-1 runs on kvm-b and nowhere else" runs_on_b
  moved=$(seconds_since "$pushed")
fi
wait_for 120 "the daemon has carried the commit out" is_settled
synced=$(seconds_since "$pushed")
sleep 0.5
kill $FOLLOW 2>/dev/null || true
FOLLOW=

say "The result"
if [ "$MODE" = lab ]; then
  beats_from=$(date +%s.%N)
  wait_for 60 "web-1 beats on kvm-b" has_beaten "$beats_from"
  for host in a b; do
    echo "kvm-$host:"
    tests/lab/lab.sh virsh $host -q list --all | sed '/^$/d'
  done
  tests/lab/lab.sh gap 9001 "$pushed" | python3 -c '
import json, sys
r = json.load(sys.stdin)
names = {"10.77.0.1": "kvm-a", "10.77.0.2": "kvm-b"}
print("heard from outside: {} heartbeats from {}; longest silence {} ms (one is due every 100 ms), {} lost".format(
    r["beats"], ", then ".join(names.get(s, s) for s in r["sources"]), r["maxGapMs"], r["lost"]))'
  echo "from push to running on kvm-b: $moved s; to synced: $synced s"
else
  echo "from push to synced: $synced s"
fi
# From the daemon's own clock: the parts of that time.
drover status -o json | python3 -c '
import datetime, json, sys
pushed, status = float(sys.argv[1]), json.load(sys.stdin)
def seconds(text): return datetime.datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00").timestamp()
seen, last = status["revision"]["seenAt"], status["last"]
if last["commit"] == status["revision"]["commit"]:
    print("  push to detection {:.2f} s, detection to pass {:.2f} s, the pass {:.2f} s".format(seconds(seen) - pushed,
        seconds(last["beganAt"]) - seconds(seen), seconds(last["endedAt"]) - seconds(last["beganAt"])))' "$pushed" || true
drover history -n 1
drover status

say "The plan now"
show "drover plan fleet --detailed-exitcode"
drover plan "$WORK/fleet" --detailed-exitcode || fail "there is still something to do (exit code $?)"

if [ "$MODE" = lab ]; then
  say "For comparison: the same guest back to kvm-a by hand"
  kill "$DAEMON"
  wait "$DAEMON" || true
  DAEMON=
  began=$(date +%s.%N)
  show "virsh migrate --live --p2p --persistent --undefinesource web-1 qemu+ssh://root@kvm-a/system"
  tests/lab/lab.sh virsh b -q migrate --live --p2p --persistent --undefinesource web-1 qemu+ssh://root@kvm-a/system
  echo "$(seconds_since "$began") s"
fi
