#!/usr/bin/env python3
"""Kills an edge with a disk cache, again and again, damages its files now and then, and looks at every byte it answers.

Each round starts the edge on the folder that the round before left behind, asks for bodies of 1 KB to 6 MB and for ranges of
them from several threads, changes and purges some of them, and ends it with SIGKILL at a moment that is drawn: the cache is so
small that logs are rolled and evicted all the time. In some rounds the files are damaged afterwards: bits flipped, cut, swapped,
deleted, filled with zeros, replaced by a folder. Then it is killed at exact points, by strace, before the write, the
rename or the removal of this number; and its clock is set back and forth under it, by libfaketime. The origin is here, so the truth is known: an answer must be one version of its body, to the byte,
not older than the last purge that was acknowledged before it was asked for, and never end cleanly when it is not whole.

ROUNDS (200) and SEED are taken from the environment. EDGE_BIN is the program; without it, target/release/edge.
"""

import hashlib
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROUNDS = int(os.environ.get("ROUNDS", "200"))
SEED = int(os.environ.get("SEED", random.SystemRandom().randrange(1 << 32)))
EDGE = os.environ.get("EDGE_BIN") or os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release", "edge")
SIZES = {f"s{n}": 1_000 + n for n in range(60)}
SIZES |= {f"m{n}": 90_000 + n for n in range(20)}
SIZES |= {f"l{n}": 1_400_000 + n for n in range(6)}
SIZES |= {f"x{n}": 6_000_000 + n for n in range(3)}
# Fresh for a second only.
SIZES |= {"t0": 3_000}
TOKEN = "crash-test"
THREADS = 6
# A machine that is too slow for all rounds does fewer, but not less than these.
SECONDS_MAX = float(os.environ.get("SECONDS_MAX", "600"))
ROUNDS_MIN = 40
# Nothing here is waited for longer; nothing takes so long.
PATIENCE = 120


def content(key, version):
    """The bytes of a key at a version: no two are alike, nor any two places in one."""
    size = SIZES[key]
    block = hashlib.shake_256(f"{key}/{version}".encode()).digest(8192)
    pieces = (block[n % 4096:] + n.to_bytes(4, "big") for n in range(size // 4096 + 2))
    return b"".join(pieces)[:size]


class Truth:
    """What each key's body is, was, and must not be any more."""

    def __init__(self):
        self.lock = threading.Lock()
        self.current = {key: 1 for key in SIZES}
        self.floor = {key: 1 for key in SIZES}
        self.bodies = {}
        self.asked = 0

    def body(self, key, version):
        with self.lock:
            known = self.bodies.get((key, version))
        if known is None:
            known = content(key, version)
            with self.lock:
                self.bodies[key, version] = known
                if len(self.bodies) > 400:
                    self.bodies.pop(next(iter(self.bodies)))
        return known


class Origin(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    truth = None

    def do_GET(self):
        key = self.path.split("?")[0].rsplit("/", 1)[-1]
        if key not in SIZES:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        truth = self.truth
        with truth.lock:
            version = truth.current[key]
            truth.asked += 1
        body, etag = truth.body(key, version), f'"{key}-{version}"'
        status, extra = 200, {}
        if self.headers.get("If-None-Match") == etag:
            status, body = 304, b""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and status == 200 and self.headers.get("If-Match", etag) == etag:
            first, last = int(wanted[1]), int(wanted[2] or len(body) - 1)
            extra["Content-Range"] = f"bytes {first}-{min(last, len(body) - 1)}/{len(body)}"
            status, body = 206, body[first:last + 1]
        self.send_response(status)
        self.send_header("ETag", etag)
        self.send_header("Cache-Control", "max-age=1" if key[0] == "t" else "max-age=3600")
        self.send_header("Content-Type", "application/octet-stream")
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        for name, value in extra.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            pass

    def log_message(self, *_):
        pass


class Wrong(Exception):
    """Something that must not be."""


class Ended(Wrong):
    """The program is not there any more."""


class Edge:
    """One life of the program."""

    def __init__(self, config, log, before=(), environment=None):
        self.log = open(log, "ab")
        began = time.monotonic()
        self.process = subprocess.Popen(
            [*before, EDGE, "run", "-c", config], stdout=subprocess.DEVNULL, stderr=self.log, start_new_session=True,
            env=os.environ | (environment or {}),
        )
        while not self.answers():
            if self.process.poll() is not None:
                self.log.close()
                raise Ended(f"the edge ended with {self.process.returncode} instead of starting")
            if time.monotonic() - began > PATIENCE:
                raise Wrong(f"the edge did not start within {PATIENCE} s")
            time.sleep(0.005)
        self.took = time.monotonic() - began

    @staticmethod
    def answers():
        """Whether it is ready: it listens earlier than that, and lets those wait who come then."""
        connection = http.client.HTTPConnection("127.0.0.1", PLAIN, timeout=5)
        try:
            answer, _ = ask(connection, "/.well-known/portico/ready")
            return answer.status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kill(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.log.close()

    def end(self):
        self.process.terminate()
        self.process.wait(timeout=PATIENCE)
        self.log.close()


def ask(connection, path, fields=None):
    connection.request("GET", path, headers={"Host": "cdn.test"} | (fields or {}))
    answer = connection.getresponse()
    return answer, answer.read()


def check(truth, connection, rng, key, tally):
    """Asks for a key or a part of it, and compares. Connection errors are the caller's: the edge may be dying."""
    with truth.lock:
        floor = truth.floor[key]
    fields, part = {}, None
    size = SIZES[key]
    if rng.random() < 0.25:
        first = rng.randrange(size)
        last = min(size - 1, first + rng.randrange(1, 300_000))
        fields, part = {"Range": f"bytes={first}-{last}"}, (first, last + 1)
    answer, body = ask(connection, f"/{key}", fields)
    with truth.lock:
        newest = truth.current[key]
    if answer.status == 503 and answer.headers.get("Retry-After"):
        # Told to ask again: there is little memory, and all of it is in use.
        tally["later"] += 1
        return
    if answer.status not in (200, 206):
        raise Wrong(f"{key}: status {answer.status}")
    part = part if answer.status == 206 else None
    first, last = part or (0, size)
    for version in range(newest, floor - 1, -1):
        if body == truth.body(key, version)[first:last]:
            break
    else:
        older = [v for v in range(1, floor) if body == truth.body(key, v)[first:last]]
        what = f"version {older[0]}, purged at {floor}" if older else "bytes that never were"
        raise Wrong(f"{key} {part or 'whole'}: {what}; {answer.headers.get('Cache-Status')}")
    status = answer.headers.get("Cache-Status", "")
    tally["disk" if "detail=disk" in status else "hit" if "; hit" in status else "miss"] += 1


def purge(truth, rng):
    """Changes a key and purges it. Only an acknowledged purge binds."""
    key = rng.choice(list(SIZES))
    with truth.lock:
        truth.current[key] += 1
        version = truth.current[key]
    connection = http.client.HTTPConnection("127.0.0.1", ADMIN, timeout=PATIENCE)
    body = json.dumps({"files": [f"cdn.test/{key}"]})
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/purge", body, headers)
    answer = connection.getresponse()
    answer.read()
    if answer.status == 200:
        with truth.lock:
            truth.floor[key] = max(truth.floor[key], version)
    connection.close()


def load(truth, seed, stop, tally, wrong, purges):
    rng = random.Random(seed)
    connection = None
    while not stop.is_set():
        try:
            if purges and rng.random() < 0.08:
                purge(truth, rng)
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", PLAIN, timeout=PATIENCE)
            kind = rng.choices("smlx", (60, 25, 10, 5))[0]
            check(truth, connection, rng, rng.choice([key for key in SIZES if key[0] == kind]), tally)
        except Wrong as error:
            wrong.append(str(error))
            return
        except (OSError, http.client.HTTPException):
            # Killed in the middle: that is the test. An answer that breaks off is seen as such.
            if connection:
                connection.close()
            connection = None
            if not stop.is_set():
                time.sleep(0.01)


def damage(rng, folder):
    """Damages one file; says how."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != "lock")
    if not files:
        return "nothing to damage"
    path = rng.choice(files)
    data = bytearray(path.read_bytes())
    how = rng.choice(("flip", "cut", "swap", "delete", "zeros", "folder"))
    if how in ("delete", "folder") or not data:
        path.unlink()
        if how == "folder" and path.suffix in (".log", ".body"):
            path.mkdir()
    elif how == "swap":
        other = rng.choice(files)
        theirs = other.read_bytes()
        other.write_bytes(data)
        path.write_bytes(theirs)
    else:
        at = rng.randrange(len(data))
        if how == "flip":
            for _ in range(rng.randrange(1, 9)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif how == "cut":
            del data[at:]
        else:
            end = min(len(data), at + rng.randrange(1, 200_000))
            data[at:end] = bytes(end - at)
        path.write_bytes(data)
    return f"{how} {path.name}"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def configuration(folder, cache, origin):
    (folder / "edge.toml").write_text(f"""
workers = 2
[listen]
plain = ["127.0.0.1:{PLAIN}"]
admin = "127.0.0.1:{ADMIN}"
[admin]
tokens = [{{ name = "crash", sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}", scopes = ["purge", "read"] }}]
purges_per_second = 100000
[cache]
memory = "8MiB"
object_max = "2MiB"
disk = {{ path = "{cache}", size = "24MiB" }}
[origin.assets]
kind = "s3"
credentials = "anonymous"
buckets = [{{ name = "assets", region = "us-east-1", endpoint = "http://127.0.0.1:{origin}", path_style = true }}]
# Its bucket is a script, which a busy machine holds up.
timeouts = {{ connect = "100s", read = "100s", attempt = "100s", operation = "100s" }}
[[site]]
hosts = ["cdn.test"]
origin = "assets"
""")
    return str(folder / "edge.toml")


def panics(log):
    text = pathlib.Path(log).read_text(errors="replace")
    return [line for line in text.splitlines() if "panicked" in line]


def one_round(number, truth, rng, config, log, cache, tally, damaged):
    edge = Edge(config, log)
    stop, wrong = threading.Event(), []
    # A damaged record of purges is the one thing that may cost more than was damaged, so purges are checked in all rounds.
    threads = [threading.Thread(target=load, args=(truth, rng.random(), stop, tally, wrong, n < 2)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(rng.choice((0.02, 0.1, 0.3, 0.6, 1.0)) * (0.5 + rng.random()))
    # Most ends are crashes; an orderly one must leave as much behind.
    stopped = rng.random() < 0.1
    if stopped:
        stop.set()
        for thread in threads:
            thread.join()
        edge.end()
    else:
        edge.kill()
        stop.set()
        for thread in threads:
            thread.join()
    if wrong:
        raise Wrong(f"round {number}, after {damaged}: {wrong[0]}")
    if found := panics(log):
        raise Wrong(f"round {number}: {found[0]}")
    return edge.took


def full_disk(folder, origin, truth, tally):
    """A file system that is really full, when this may mount one."""
    mount = folder / "small"
    mount.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(mount)], capture_output=True)
    if mounted.returncode != 0:
        print("  full disk: left out, for no file system may be mounted here")
        return
    try:
        config, log = configuration(folder, mount / "cache", origin), str(folder / "full.log")
        edge = Edge(config, log)
        connection, rng = http.client.HTTPConnection("127.0.0.1", PLAIN, timeout=PATIENCE), random.Random(SEED)
        before = dict(tally)
        for key in list(SIZES) * 2:
            check(truth, connection, rng, key, tally)
        free = shutil.disk_usage(mount).free
        end = time.monotonic() + PATIENCE
        while "cannot be written" not in pathlib.Path(log).read_text() and time.monotonic() < end:
            time.sleep(0.05)
        if "cannot be written" not in pathlib.Path(log).read_text():
            raise Wrong(f"a full disk was not told of; {free} bytes are free")
        subprocess.run(["mount", "-o", "remount,size=64m", str(mount)], check=True)
        end = time.monotonic() + PATIENCE
        while "can be written again" not in pathlib.Path(log).read_text():
            if time.monotonic() > end:
                raise Wrong("the disk has room again, and is not written")
            check(truth, connection, rng, rng.choice(list(SIZES)), tally)
            purge(truth, rng)
            time.sleep(0.05)
        edge.end()
        print(f"  full disk: {sum(tally.values()) - sum(before.values())} answers, all right, and written again once there was room")
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)


def exact_points(config, log, truth, rng, tally):
    """Kills the edge before the n-th call of a kind that changes files; each start finds what the kill before it left."""
    probe = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=none", "true"]
    if not shutil.which("strace") or subprocess.run(probe, capture_output=True).returncode != 0:
        print("  exact points: left out, for nothing may be traced here")
        return
    points = [("pwrite64", n) for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 27, 33, 40, 50)]
    points += [("fdatasync", n) for n in (1, 2, 3, 4)] + [("unlink", n) for n in (1, 2, 3, 5)]
    points += [("openat", n) for n in (3, 9, 20, 30)] + [("rename", 1), ("rename", 2), ("fsync", 1), ("fsync", 2)]
    died, began = 0, time.monotonic()
    keys = [key for key in SIZES if key[0] in "sml"]
    for call, number in points:
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
        ended = alive_under(["strace", "-f", "-qq", "-o", "/dev/null", *inject], config, log, truth, rng, keys, tally)
        died += ended
        if found := panics(log):
            raise Wrong(f"killed before {call} {number}: {found[0]}")
    edge = Edge(config, log)
    connection = http.client.HTTPConnection("127.0.0.1", PLAIN, timeout=PATIENCE)
    for key in SIZES:
        check(truth, connection, rng, key, tally)
    edge.kill()
    print(f"  {died} of {len(points)} exact points reached and survived, in {time.monotonic() - began:.0f} s")
    if died < len(points) // 2:
        raise Wrong("too few points were reached: this tests nothing")


def alive_under(before, config, log, truth, rng, keys, tally):
    """One life under strace; whether it was killed there."""
    try:
        edge = Edge(config, log, before)
    except Ended:
        return True
    try:
        connection = http.client.HTTPConnection("127.0.0.1", PLAIN, timeout=PATIENCE)
        for key in rng.sample(keys, 25):
            check(truth, connection, rng, key, tally)
            if rng.random() < 0.3:
                purge(truth, rng)
    except (OSError, http.client.HTTPException):
        # It is gone, or about to be.
        edge.process.wait(timeout=PATIENCE)
    died = edge.process.poll() is not None
    edge.kill()
    return died


def clock_steps(folder, config, log, truth, rng, tally):
    """Sets the clock back and forth, under a running edge and between two."""
    library = next(iter(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    if library is None:
        print("  clock steps: left out, for libfaketime is not installed")
        return
    stamp = folder / "faketime"
    stamp.write_text("+0\n")
    environment = {
        "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(stamp), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }
    keys = ["t0", "s1", "m1", "l1", "x1"]
    answers = 0
    for start in ("+0", "-2d", "-400d", "+2d"):
        stamp.write_text(start + "\n")
        edge = Edge(config, log, environment=environment)
        for step in (start, "-2d", "+2d", "-400d", "+0"):
            stamp.write_text(step + "\n")
            connection = http.client.HTTPConnection("127.0.0.1", PLAIN, timeout=PATIENCE)
            for key in keys * 2:
                check(truth, connection, rng, key, tally)
                answer, _ = ask(connection, f"/{key}")
                age = answer.headers.get("Age", "0")
                if not age.isdigit():
                    raise Wrong(f"clock {start} then {step}: Age {age}")
                answers += 2
            renewed(truth, connection, "t0", f"clock {start} then {step}")
            purge(truth, rng)
            connection.close()
        edge.kill()
    if found := panics(log):
        raise Wrong(f"clock steps: {found[0]}")
    print(f"  clock steps of -2, +2 and -400 days: {answers} answers, all right, and what was stale was validated each time")


def renewed(truth, connection, key, when):
    """Changes a body that is fresh for a second; nobody may be given the old one for good."""
    with truth.lock:
        truth.current[key] += 1
        version = truth.current[key]
    end = time.monotonic() + PATIENCE
    while True:
        _, body = ask(connection, f"/{key}")
        if body == truth.body(key, version):
            return
        if time.monotonic() > end:
            raise Wrong(f"{when}: {key} is served old for good")
        time.sleep(0.1)


def main():
    global PLAIN, ADMIN
    print(f"  SEED={SEED} ROUNDS={ROUNDS}", flush=True)
    rng, truth = random.Random(SEED), Truth()
    Origin.truth = truth
    server = ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    server.daemon_threads = True
    # Those who ask are killed in the middle; that says nothing.
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    PLAIN, ADMIN = free_port(), free_port()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="portico-crash-"))
    began, code = time.monotonic(), 0
    tally, starts, damages = {"hit": 0, "disk": 0, "miss": 0, "later": 0}, [], 0
    try:
        cache, log = folder / "cache", str(folder / "edge.log")
        config = configuration(folder, cache, server.server_address[1])
        damaged, done = "no damage", 0
        for number in range(ROUNDS):
            if time.monotonic() - began > SECONDS_MAX and number >= ROUNDS_MIN:
                print(f"  this machine does {number} of {ROUNDS} rounds in {SECONDS_MAX:.0f} s")
                break
            starts.append(one_round(number, truth, rng, config, log, cache, tally, damaged))
            done, damaged = number + 1, "no damage"
            if rng.random() < 0.35:
                damaged = damage(rng, cache)
                damages += 1
        print(f"  {done} rounds, {damages} with damage: {sum(tally.values())} answers, all right: {tally}")
        starts.sort()
        print(f"  ready after {starts[len(starts) // 2]:.3f} s (median), {starts[-1]:.3f} s (longest)")
        if done >= ROUNDS_MIN and not tally["disk"]:
            raise Wrong("nothing was ever answered from disk: this tests nothing")
        if tally["later"] > sum(tally.values()) // 10:
            raise Wrong("one answer of ten was none: this tests too little")
        exact_points(config, log, truth, rng, tally)
        clock_steps(folder, config, log, truth, rng, tally)
        full_disk(folder, server.server_address[1], truth, tally)
    except (Wrong, OSError, http.client.HTTPException) as error:
        # An answer that does not come, or not to its end, is as wrong as one with other bytes.
        traceback.print_exc(file=sys.stdout)
        print(f"  WRONG: {error}; again with SEED={SEED}")
        text = pathlib.Path(log).read_text(errors="replace") if os.path.exists(log) else ""
        print("\n".join("    " + line for line in text.splitlines()[-12:]))
        code = 1
    finally:
        if code == 0 or not os.environ.get("KEEP"):
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
