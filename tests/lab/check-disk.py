#!/usr/bin/env python3
"""Accounts for every block that a guest wrote to its (raw) disk, as JSON.

usage: check-disk.py IMAGE

The guest numbers its 4-KiB writes from 1 and writes them in order, so while the disk has not wrapped around, each number
up to the highest stands exactly once: `complete`.
"""
import json
import struct
import sys

MAGIC = 0x4452564D
numbers = []
with open(sys.argv[1], "rb") as image:
    while len(block := image.read(4096)) == 4096:
        magic, number, _offset = struct.unpack("<QQQ", block[:24])
        if magic == MAGIC:
            numbers.append(number)
print(json.dumps({
    "blocks": len(numbers),
    "highest": max(numbers, default=0),
    "complete": sorted(numbers) == list(range(1, len(numbers) + 1)),
}))
