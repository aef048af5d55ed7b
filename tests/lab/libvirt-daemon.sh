#!/bin/bash
# The libvirt daemon of the host this runs in: libvirt-daemon.sh start|stop|kill|pause|cont|restart
set -euo pipefail

pid() { cat /run/libvirtd.pid; }

start() {
  /usr/sbin/libvirtd --listen --daemon
  for _ in $(seq 300); do
    if virsh -c qemu:///system version >/dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  echo "libvirtd did not come up: see /var/log/libvirt/libvirtd.log" >&2
  return 1
}

# Waits for the end, so that a `start` after it does not meet the old one's locks.
end() {
  local pid
  pid=$(pid)
  kill "-$1" "$pid"
  for _ in $(seq 300); do
    if ! kill -0 "$pid" 2>/dev/null; then return 0; fi
    sleep 0.1
  done
  echo "libvirtd ($pid) did not end" >&2
  return 1
}

case ${1:-} in
  start) start ;;
  stop) end TERM ;;
  kill) end KILL ;;
  pause) kill -STOP "$(pid)" ;;
  cont) kill -CONT "$(pid)" ;;
  restart) end TERM && start ;;
  *)
    sed -n 2p "$0" >&2
    exit 64
    ;;
esac
