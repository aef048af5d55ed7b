#!/usr/bin/env python3
"""Prints the domain XML of a lab guest.

usage: domain-xml.py NAME [KEY=VALUE ...]

guest    mem (MiB, 256), vcpu, dirty (MiB of memory it keeps writing), rate (MiB/s of that), hb (ms between heartbeats),
         drate (KiB/s written to the first disk), addr (its address on eth0), boot (kernel, or none: BIOS only, starts in
         a second)
disks    disk (paths, comma-separated; nbd:HOST:PORT:EXPORT for a network disk), fmt, cache
rest     net=1 (an interface on br0), agent=1 (a channel for its agent), port (UDP port for heartbeats at the client), type,
         machine, cpu (XML), uuid, meta (XML inside <metadata>), extra (XML inside <devices>)
"""
import hashlib
import sys
import uuid
from xml.sax.saxutils import escape

o = dict(mem="256", vcpu="1", dirty="16", rate="4", hb="100", drate="0", addr="", boot="kernel", disk="", fmt="raw",
         cache="none", net="0", agent="0", port="", type="qemu", machine="q35", cpu="", uuid="", meta="", extra="")
if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
    sys.exit(__doc__)
name = sys.argv[1]
for argument in sys.argv[2:]:
    key, _, value = argument.partition("=")
    if key not in o:
        sys.exit(f"domain-xml: there is no `{key}`; there are {', '.join(o)}")
    o[key] = value

digest = hashlib.md5(name.encode()).hexdigest()
identity = o["uuid"] or str(uuid.UUID(digest))
port = o["port"] or str(9000 + int(digest[:4], 16) % 900)  # as heartbeat-gap.py has it
x = [f"<domain type='{o['type']}'>", f"<name>{escape(name)}</name>", f"<uuid>{identity}</uuid>"]
if o["meta"]:
    x.append(f"<metadata>{o['meta']}</metadata>")
x.append(f"<memory unit='MiB'>{o['mem']}</memory><vcpu>{o['vcpu']}</vcpu>")
x.append(f"<os><type arch='x86_64' machine='{o['machine']}'>hvm</type>")
if o["boot"] == "kernel":
    line = "console=ttyS0 loglevel=1 mitigations=off panic=1 "
    line += " ".join(f"{k}={o[k]}" for k in ("dirty", "rate", "hb", "drate", "addr") if o[k])
    x.append(f"<kernel>/srv/guest/vmlinuz</kernel><initrd>/srv/guest/initrd.gz</initrd><cmdline>{escape(line)}</cmdline>")
else:
    x.append("<boot dev='hd'/>")
x.append(f"</os><features><acpi/></features>{o['cpu']}<clock offset='utc'/><on_crash>destroy</on_crash><devices>")
for i, disk in enumerate(filter(None, o["disk"].split(","))):
    target = f"<target dev='vd{'abcdef'[i]}' bus='virtio'/>"
    driver = f"<driver name='qemu' type='{o['fmt']}' cache='{o['cache']}'/>"
    if disk.startswith("nbd:"):
        _, host, nbd_port, export = disk.split(":")
        source = f"<source protocol='nbd' name='{export}'><host name='{host}' port='{nbd_port}'/></source>"
        x.append(f"<disk type='network' device='disk'>{driver}{source}{target}</disk>")
    else:
        x.append(f"<disk type='file' device='disk'>{driver}<source file='{escape(disk)}'/>{target}</disk>")
if o["net"] != "0":
    x.append("<interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>")
if o["agent"] != "0":
    x.append("<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>")
x.append(f"<serial type='udp'><source mode='connect' host='10.77.0.3' service='{port}'/></serial>")
x.append(f"<memballoon model='virtio'/>{o['extra']}</devices></domain>")
print("\n".join(x))
