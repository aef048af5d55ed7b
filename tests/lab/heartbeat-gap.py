#!/usr/bin/env python3
"""What was heard of a guest from outside, as JSON.

usage: heartbeat-gap.py LOG NAME|PORT [SINCE]   (SINCE: seconds since the epoch)

beats    heartbeats heard            maxGapMs   longest silence between two of them, in ms, and `at`, when it ended
lost     numbers that never came     back       numbers that came again or went back: two guests, or one that restarted
sources  hosts that sent, in order   last       when the last one came; `sinceLastMs`, how long ago that is
writes   disk blocks that the guest had written by then
"""
import hashlib
import json
import sys
import time

log, guest = sys.argv[1:3]
since = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
port = guest if guest.isdigit() else str(9000 + int(hashlib.md5(guest.encode()).hexdigest()[:4], 16) % 900)
r = {"port": int(port), "beats": 0, "maxGapMs": 0, "at": None, "lost": 0, "back": 0, "sources": [], "last": None,
     "sinceLastMs": None, "writes": 0}
number = None
try:
    lines = open(log, errors="replace")
except FileNotFoundError:
    lines = []
for line in lines:
    words = line.split()
    if len(words) < 5 or words[1] != port or words[3] != "HB" or not words[4].isdigit():
        continue
    now, n = float(words[0]), int(words[4])
    if now < since:
        continue
    if number is not None:
        if n > number + 1:
            r["lost"] += n - number - 1
        elif n <= number:
            r["back"] += 1
    number = n
    if r["last"] is not None and (now - r["last"]) * 1000 > r["maxGapMs"]:
        r["maxGapMs"] = round((now - r["last"]) * 1000)
        r["at"] = now
    r["last"] = now
    r["beats"] += 1
    if not r["sources"] or r["sources"][-1] != words[2]:
        r["sources"].append(words[2])
    if words[-1].startswith("d=") and words[-1][2:].isdigit():
        r["writes"] = int(words[-1][2:])
if r["last"] is not None:
    r["sinceLastMs"] = round((time.time() - r["last"]) * 1000)
print(json.dumps(r))
