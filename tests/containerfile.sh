#!/bin/bash
# Checks the Containerfile without a container engine: tests/containerfile.sh [BINARY]
#
#   - each stage has a base image with a tag, and the last one is Debian, of the release that the build stage has
#   - packages that it installs exist (where apt has lists for that Debian release)
#   - files that it copies exist, and cargo finds all targets among them
#   - the last stage runs as somebody, keeps its state in a volume, and starts the program without a shell
#   - every shared library of BINARY (target/debug/drover) comes from the last stage's packages
# Prints a line for each; exit code 1 when one is wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 - "${1:-${CARGO_TARGET_DIR:-target}/debug/drover}" <<'PYTHON'
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

FILE = pathlib.Path("Containerfile")
wrong = 0


def say(good, what):
    global wrong
    wrong += not good
    print(("ok     " if good else "WRONG  ") + what)


def skip(what):
    print("skip   " + what)


def output(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout


# ---- read it: comments out, continued lines joined
stages, text = [], ""
for line in FILE.read_text().splitlines():
    if line.lstrip().startswith("#") or (not line.strip() and not text):
        continue
    text += line
    if text.endswith("\\"):
        text = text[:-1] + " "
        continue
    word, _, rest = text.strip().partition(" ")
    text = ""
    if word == "FROM":
        image, _, name = rest.partition(" AS ")
        stages.append({"image": image, "name": name.strip(), "steps": []})
    elif not stages:
        say(False, f"{word} before the first FROM")
    else:
        stages[-1]["steps"].append((word, rest.strip()))
say(len(stages) >= 2, f"{len(stages)} stages")
first, last = stages[0], stages[-1]
KNOWN = {"RUN", "COPY", "WORKDIR", "ENV", "USER", "VOLUME", "EXPOSE", "ENTRYPOINT", "CMD", "ARG", "LABEL"}
unknown = {word for stage in stages for word, _ in stage["steps"]} - KNOWN
say(not unknown, f"instructions are known {sorted(unknown) or ''}")

# ---- base images
for stage in stages:
    say(bool(re.fullmatch(r"[a-z0-9.-]+/[a-z0-9./-]+:[A-Za-z0-9._-]+", stage["image"])), f"base image {stage['image']} is named in full, with a tag")
codename = re.search(r"debian:([a-z]+)", last["image"])
say(codename is not None and codename[1] in first["image"], "the program is built on the Debian release it runs on")
codename = codename[1] if codename else ""


# ---- shell steps and packages
def packages(stage):
    for word, rest in stage["steps"]:
        if word == "RUN":
            for command in re.split(r"&&|;", rest):
                words = shlex.split(command)
                if words[:2] == ["apt-get", "install"]:
                    yield from (w for w in words[2:] if not w.startswith("-"))


for stage in stages:
    for word, rest in stage["steps"]:
        if word == "RUN":
            good = subprocess.run(["sh", "-n", "-c", rest]).returncode == 0
            say(good, f"a shell reads: {rest[:60]}...")
release = dict(l.split("=", 1) for l in pathlib.Path("/etc/os-release").read_text().splitlines() if "=" in l)
here = release.get("VERSION_CODENAME", "").strip('"')
same_debian = release.get("ID") == "debian" and here == codename
shown = output("apt-cache", "show", "--no-all-versions", *{p for stage in stages for p in packages(stage)})
known = set(re.findall(r"^Package: (\S+)$", shown, re.M))
for stage in stages:
    for package in packages(stage):
        if same_debian:
            say(package in known, f"package {package}")
        else:
            skip(f"package {package}: this machine is not Debian {codename}")

# ---- copied files, and whether cargo is content with them alone
ignored = [l.strip() for l in pathlib.Path(".dockerignore").read_text().splitlines() if l.strip()]
with tempfile.TemporaryDirectory() as tree:
    for word, rest in first["steps"]:
        if word != "COPY":
            continue
        *sources, target = [w for w in rest.split() if not w.startswith("--")]
        for source in sources:
            if source == ".":
                pack = 'git ls-files -z --cached --others --exclude-standard | tar --null -T - -c | tar -x -C "$0"'
                say(subprocess.run(["sh", "-c", pack, tree]).returncode == 0, "copied: all that Git knows")
                continue
            say(os.path.exists(source) and source.split("/")[0] not in ignored, f"copied: {source}")
            destination = pathlib.Path(tree, target, os.path.basename(source) if target.endswith("/") else "")
            destination.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", source, str(destination)], check=False)
    metadata = subprocess.run(["cargo", "metadata", "--offline", "--locked", "--no-deps", "--format-version", "1"],
                              cwd=tree, capture_output=True, text=True)
    say(metadata.returncode == 0, f"cargo reads the copied package {metadata.stderr.strip()}")
    if metadata.returncode == 0:
        targets = json.loads(metadata.stdout)["packages"][0]["targets"]
        missing = [t["src_path"] for t in targets if not os.path.exists(t["src_path"])]
        say(not missing, f"its targets are all copied {missing or ''}")
    reads = output("grep", "-rhoE", r'include_(str|bytes)!\("[^"]*"\)', "src")
    for path in sorted(set(re.findall(r'\("([^"]*)"\)', reads))):
        found = [p for p in pathlib.Path("src").rglob("*.rs") if path in p.read_text() and
                 (pathlib.Path(tree) / p.parent / path).exists()]
        say(bool(found), f"compiled in: {path}")
for word, rest in last["steps"]:
    if word == "COPY":
        stage, source, _ = rest.split()
        named = any(s["name"] and stage == f"--from={s['name']}" for s in stages)
        workdir = next((r for w, r in first["steps"] if w == "WORKDIR"), "/")
        built = f"{workdir}/target/release/drover"
        say(named and source == built, f"copied from the build: {source}")

# ---- how it runs
at = {word: rest for word, rest in last["steps"]}
say(at.get("USER", "root") not in ("root", "0") and "useradd" in str(last["steps"]), f"runs as {at.get('USER', 'root')}")
say(at.get("VOLUME") == "/var/lib/drover", f"volume {at.get('VOLUME')}")
say(at.get("EXPOSE") == "8080", f"port {at.get('EXPOSE')}")
for word, want in (("ENTRYPOINT", ["/usr/local/bin/drover"]), ("CMD", ["daemon"])):
    try:
        say(json.loads(at.get(word, "")) == want, f"{word} {at.get(word)}")
    except ValueError:
        say(False, f"{word} is not in the exec form: {at.get(word)}")

# ---- the program's libraries
binary = sys.argv[1]
if not os.path.exists(binary):
    skip(f"libraries: there is no {binary}")
elif not same_debian:
    skip(f"libraries: this machine is not Debian {codename}")
else:
    depends = output("apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks",
                     "--no-replaces", "--no-enhances", "--installed", *packages(last))
    provided = set(re.findall(r"^(\S+)$", depends, re.M)) | {"libc6"}
    provided = {p.split(":")[0] for p in provided}
    libraries = output("ldd", binary)
    say("not found" not in libraries, "all libraries are found here")
    paths = {p: os.path.realpath(p) for p in sorted(set(re.findall(r"(/\S+) \(", libraries)))}
    # One call for all: each reads every package's list. A file may be listed under /lib, as before /usr was merged.
    listed = output("dpkg", "-S", *paths.values(), *(p.removeprefix("/usr") for p in paths.values()))
    for path, real in paths.items():
        owners = {l.split(":")[0] for l in listed.splitlines() if l.split(": ")[-1] in (real, real.removeprefix("/usr"))}
        say(bool(owners & provided), f"{os.path.basename(path)} from {', '.join(sorted(owners)) or 'no package'}")
sys.exit(wrong > 0)
PYTHON
