#!/usr/bin/env python3
"""Resident memory of an edge under loads that are made to fill it, measured from outside.

The edge gets a small cap, a disk cache and a bucket that holds everything: each path has a body of its own, of the size that its
name says. Three loads follow one another, each on a process of its own: small bodies, no two requests for the same one; large
bodies of 10 MiB, no two for the same one; and both, while slow readers hold on to what they were given. The kernel's own
figure, VmHWM, must stay under what the cap promises: the cap, 15 % of it, and what the program takes by itself. Bytes are compared.

EDGE_BIN is the program; without it, target/release/edge.
"""

import hashlib
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

EDGE = os.environ.get("EDGE_BIN") or os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release", "edge")
MIB = 1024 * 1024
CAP = int(os.environ.get("CAP_MIB", "64")) * MIB
# What the program takes besides its cache: its own pages, threads, connections, buffers of sockets, what the allocator keeps.
CONSTANT = 64 * MIB
LIMIT = CAP * 115 // 100 + CONSTANT
SECONDS = float(os.environ.get("SECONDS", "8"))
LARGE = 10 * MIB
BLOCK = random.Random(7).randbytes(64 * 1024) * (LARGE // (64 * 1024) + 1)


class Wrong(Exception):
    """Something that must not be."""


def body(path):
    """The bytes of a path such as /s/17/1500: no two begin alike."""
    _, size = path.rsplit("/", 1)
    size = int(size)
    mark = hashlib.sha256(path.encode()).digest()
    return memoryview(mark + BLOCK)[:size] if size < 65536 else (mark, memoryview(BLOCK)[32:size])


def send_body(connection, content, first=0):
    if isinstance(content, tuple):
        mark, rest = content
        if first < 32:
            connection.sendall(mark[first:])
            connection.sendall(rest)
        else:
            connection.sendall(rest[first - 32:])
    else:
        connection.sendall(content[first:])


def serve(connection):
    """One connection of the bucket: requests one after another, read by hand, for this is done many thousand times."""
    pending = b""
    try:
        while True:
            while b"\r\n\r\n" not in pending:
                more = connection.recv(65536)
                if not more:
                    return
                pending += more
            head, pending = pending.split(b"\r\n\r\n", 1)
            path = head.split(b" ", 2)[1].decode().split("?")[0].removeprefix("/assets")
            size = int(path.rsplit("/", 1)[1])
            first, status = 0, "200 OK"
            extra = ""
            for line in head.split(b"\r\n")[1:]:
                if line.lower().startswith(b"range: bytes="):
                    first, last = line.split(b"=")[1].decode().split("-")
                    first, last = int(first), int(last or size - 1)
                    if last != size - 1:
                        raise OSError("only open ranges are asked for here")
                    status, extra = "206 Partial Content", f"Content-Range: bytes {first}-{last}/{size}\r\n"
            answer = (
                f"HTTP/1.1 {status}\r\nContent-Length: {size - first}\r\nETag: \"{path}\"\r\nContent-Type: application/octet-stream\r\n"
                f"Cache-Control: public, max-age=3600\r\n{extra}\r\n"
            )
            content = body(path)
            if isinstance(content, tuple):
                connection.sendall(answer.encode())
                send_body(connection, content, first)
            else:
                connection.sendall(answer.encode() + content[first:])
    except OSError:
        pass
    finally:
        connection.close()


def bucket():
    """Serves the bucket in a process of its own; gives its port and its number."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    port = listener.getsockname()[1]
    child = os.fork()
    if child == 0:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()
    listener.close()
    return port, child


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def configuration(folder, plain, origin, disk):
    cache = f'disk = {{ path = "{folder / "cache"}", size = "512MiB" }}' if disk else ""
    path = folder / "edge.toml"
    path.write_text(f"""
workers = 2
[listen]
plain = ["127.0.0.1:{plain}"]
[cache]
memory = "{CAP // MIB}MiB"
{cache}
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
    return str(path)


class Client:
    """One connection, read by hand."""

    def __init__(self, port, window=None):
        self.socket = socket.socket()
        if window:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.settimeout(30)
        self.socket.connect(("127.0.0.1", port))
        self.pending = b""

    def ask(self, path):
        """Asks, and gives the status and the length of the body, of which some may be pending."""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: cdn.test\r\n\r\n".encode())
        while b"\r\n\r\n" not in self.pending:
            more = self.socket.recv(65536)
            if not more:
                raise OSError("closed")
            self.pending += more
        head, self.pending = self.pending.split(b"\r\n\r\n", 1)
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return int(head.split(b" ", 2)[1]), length

    def check(self, path, length):
        """Reads the body, and compares it."""
        truth = body(path)
        truth = memoryview(b"".join(truth)) if isinstance(truth, tuple) else truth
        if length != len(truth):
            raise Wrong(f"{path}: {length} bytes announced")
        at = 0
        while at < length:
            piece = self.pending or self.socket.recv(256 * 1024)
            self.pending = b""
            if not piece:
                raise OSError("cut")
            if truth[at:at + len(piece)] != piece:
                raise Wrong(f"{path}: wrong bytes near {at}")
            at += len(piece)


class Load:
    """Threads that ask for paths that nobody asked for before."""

    def __init__(self, port):
        self.port, self.stop = port, threading.Event()
        self.lock, self.number = threading.Lock(), 0
        self.right, self.refused, self.cut, self.wrong = 0, 0, 0, []

    def path(self, size):
        with self.lock:
            self.number += 1
            return f"/n/{self.number}/{size}"

    def run(self, sizes, rng):
        client = None
        while not self.stop.is_set():
            path = self.path(sizes(rng))
            try:
                client = client or Client(self.port)
                status, length = client.ask(path)
                if status == 503:
                    self.refused += 1
                    client.check_nothing = client.socket.recv(length) if length > len(client.pending) else b""
                    client.socket.close()
                    client = None
                    time.sleep(0.01)
                    continue
                if status != 200:
                    raise Wrong(f"{path}: status {status}")
                client.check(path, length)
                self.right += 1
            except Wrong as error:
                self.wrong.append(str(error))
                return
            except OSError:
                self.cut += 1
                client = None

    def crawl(self, size):
        """Asks for a large body, and reads a little of it at a time."""
        client = Client(self.port, window=8192)
        try:
            client.ask(self.path(size))
            while not self.stop.is_set():
                client.socket.recv(2048)
                time.sleep(0.2)
        except OSError:
            pass
        finally:
            client.socket.close()


def small(rng):
    return rng.choice((300, 1000, 1000, 2000, 5000, 20_000))


def large(_):
    return LARGE


def mixed(rng):
    return LARGE if rng.random() < 0.05 else small(rng)


def status_of(process, name):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise Wrong("the edge is gone")


def measure(name, sizes, threads, slow, disk, origin):
    """One load on a process of its own; what the most was that it took."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="portico-memory-"))
    plain = free_port()
    try:
        config = configuration(folder, plain, origin, disk)
        with open(folder / "edge.log", "wb") as log:
            process = subprocess.Popen([EDGE, "run", "-c", config], stdout=subprocess.DEVNULL, stderr=log)
        try:
            end = time.monotonic() + 120
            while True:
                try:
                    socket.create_connection(("127.0.0.1", plain), 1).close()
                    break
                except OSError:
                    if time.monotonic() > end or process.poll() is not None:
                        raise Wrong("the edge does not start: " + (folder / "edge.log").read_text())
                    time.sleep(0.02)
            idle = status_of(process, "VmRSS")
            load = Load(plain)
            runs = [threading.Thread(target=load.run, args=(sizes, random.Random(n))) for n in range(threads)]
            runs += [threading.Thread(target=load.crawl, args=(LARGE if n % 2 else MIB,)) for n in range(slow)]
            for run in runs:
                run.start()
            time.sleep(SECONDS)
            load.stop.set()
            for run in runs:
                run.join()
            highest, after = status_of(process, "VmHWM"), status_of(process, "VmRSS")
        finally:
            process.kill()
            process.wait()
        kept = "with disk" if disk else "memory only"
        print(
            f"  {name}, {kept}: {highest / MIB:.0f} MiB at most, {after / MIB:.0f} afterwards, {idle / MIB:.0f} before; "
            f"{load.right} bodies right, {load.refused} refused, {load.cut} cut",
            flush=True,
        )
        if load.wrong:
            raise Wrong(load.wrong[0])
        if "panicked" in (folder / "edge.log").read_text(errors="replace"):
            raise Wrong(f"{name}: a panic")
        return highest
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    port, child = bucket()
    print(f"  cap {CAP // MIB} MiB: at most {LIMIT / MIB:.0f} MiB, of which {CONSTANT // MIB} are the program's own", flush=True)
    code = 0
    try:
        for disk in (True, False):
            for name, sizes, threads, slow in (
                ("small", small, 8, 0),
                ("large", large, 8, 0),
                ("mixed, 60 slow readers", mixed, 8, 60),
            ):
                if measure(name, sizes, threads, slow, disk, port) > LIMIT:
                    print(f"  WRONG: {name}: more than {LIMIT / MIB:.0f} MiB")
                    code = 1
    except Wrong as error:
        print(f"  WRONG: {error}")
        code = 1
    finally:
        os.kill(child, 9)
    sys.exit(code)


if __name__ == "__main__":
    main()
