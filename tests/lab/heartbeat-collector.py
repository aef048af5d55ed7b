#!/usr/bin/env python3
"""Hears the guests' heartbeats on the client: one line for each, with wall-clock time, UDP port, sender and text.

usage: heartbeat-collector.py LOG READY   (READY is a file that is made once all ports are open)
"""
import pathlib
import select
import socket
import sys
import time

FIRST, LAST = 9000, 9999  # one port for each guest

log = open(sys.argv[1], "a", buffering=1)
poll = select.epoll()
sockets = {}
for port in range(FIRST, LAST + 1):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("0.0.0.0", port))
    s.setblocking(False)
    poll.register(s, select.EPOLLIN)
    # A serial line sends a few characters at a time; a line that a migration cuts goes on from the other host, so the
    # rest is kept by port and not by sender.
    sockets[s.fileno()] = (s, port, bytearray())
pathlib.Path(sys.argv[2]).touch()
while True:
    for fd, _ in poll.poll():
        s, port, rest = sockets[fd]
        try:
            data, sender = s.recvfrom(65536)
        except BlockingIOError:
            continue
        now = time.time()
        rest += data
        while b"\n" in rest:
            line, _, tail = bytes(rest).partition(b"\n")
            rest[:] = tail
            log.write(f"{now:.3f} {port} {sender[0]} {line.decode('latin1').strip()}\n")
