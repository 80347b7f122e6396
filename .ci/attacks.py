#!/usr/bin/env python3
"""Attacks a running demo as strangers do, and looks whether it minds.

Each attack runs for some seconds from a few connections, while a good client goes on asking for the sample script over one
kept connection and over new ones. Afterwards: the same process is alive; every good answer was right and came in time; the
memory did not grow by more than 64 MiB; the descriptors are given back; the processor rests. Where a limit of ours ends the
attack, the attacker must have been told, or cut off. Needs hpack and hyperframe.
"""

import http.client
import multiprocessing
import os
import socket
import ssl
import struct
import sys
import threading
import time

import hpack
from hyperframe.frame import (
    ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, PriorityFrame, RstStreamFrame,
    SettingsFrame, WindowUpdateFrame,
)

from demo import PAGE, SCRIPT, Demo, Tally, trusting

SECONDS = 4.0
CONNECTIONS = 4
MEMORY_GROWTH_MAX = 64 * 1024 * 1024
DESCRIPTORS_LEFT_MAX = 20
# Attackers and the edge share the processors, so this bounds starvation and not speed.
GOOD_ANSWER_MAX = 10.0
# Of a process that may have few open files.
FILES = 300
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class H2:
    """A client that speaks HTTP/2 frame by frame, and says whatever it is told to."""

    def __init__(self, port, settings=None, receive_buffer=None):
        raw = socket.socket()
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(5)
        raw.connect(("127.0.0.1", port))
        try:
            self.socket = trusting(("h2",)).wrap_socket(raw, server_hostname="localhost")
        except BaseException:
            raw.close()
            raise
        self.authority = f"localhost:{port}"
        self.encoder = hpack.Encoder()
        self.buffer = b""
        self.goaway = None
        self.socket.sendall(PREFACE + SettingsFrame(0, settings=settings or {}).serialize())

    def head(self, *more, method="GET"):
        fields = [(":method", method), (":scheme", "https"), (":authority", self.authority), (":path", SCRIPT)]
        return self.encoder.encode(fields + list(more), huffman=False)

    def ask(self, stream, *more, end=True, method="GET"):
        flags = ["END_HEADERS"] + (["END_STREAM"] if end else [])
        return HeadersFrame(stream, data=self.head(*more, method=method), flags=flags).serialize()

    def send(self, data):
        """Whether it went out: a peer that has had enough takes nothing more."""
        try:
            self.socket.settimeout(2)
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def look(self):
        """Reads what is there without waiting. False once the connection is over."""
        try:
            self.socket.settimeout(0.002)
            while True:
                got = self.socket.recv(65536)
                if not got:
                    return False
                self.buffer += got
                self._frames()
        except (TimeoutError, ssl.SSLWantReadError):
            return self.goaway is None
        except OSError:
            return False

    def _frames(self):
        while len(self.buffer) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self.buffer[:9]))
            if len(self.buffer) < 9 + length:
                return
            if isinstance(frame, GoAwayFrame):
                frame.parse_body(memoryview(self.buffer[9:9 + length]))
                self.goaway = frame.error_code
            self.buffer = self.buffer[9 + length:]

    def close(self):
        self.socket.close()


class Burst:
    """What one connection of an attack sends next; stream ids and state go on from burst to burst."""

    def __init__(self, h2):
        self.h2, self.stream, self.begun = h2, 1, False

    def streams(self, count):
        for _ in range(count):
            yield self.stream
            self.stream += 2

    def first(self):
        begun, self.begun = self.begun, True
        return not begun

    def rapid_reset(self):
        cancel = [(self.h2.ask(i), RstStreamFrame(i, error_code=8).serialize()) for i in self.streams(200)]
        return b"".join(ask + reset for ask, reset in cancel)

    def made_you_reset_by_window(self):
        zero = struct.pack(">I", 0)
        return b"".join(self.h2.ask(i) + raw(8, i, zero) for i in self.streams(100))

    def made_you_reset_by_overflow(self):
        most = struct.pack(">I", 0x7FFFFFFF)
        return b"".join(self.h2.ask(i) + raw(8, i, most) for i in self.streams(100))

    def made_you_reset_by_priority(self):
        return b"".join(self.h2.ask(i) + PriorityFrame(i, depends_on=i, stream_weight=16).serialize()
                        for i in self.streams(100))

    def made_you_reset_by_data(self):
        return b"".join(self.h2.ask(i) + DataFrame(i, data=b"x").serialize() for i in self.streams(100))

    def continuation_flood(self):
        start = HeadersFrame(1, data=self.h2.head()).serialize() if self.first() else b""
        block = hpack.Encoder().encode([(f"x-{n}", "a" * 200) for n in range(60)], huffman=False)
        return start + ContinuationFrame(1, data=block).serialize() * 4

    def empty_continuations(self):
        start = HeadersFrame(1, data=b"").serialize() if self.first() else b""
        return start + ContinuationFrame(1, data=b"").serialize() * 1000

    def hpack_bomb(self):
        start = b""
        if self.first():
            (stream,) = self.streams(1)
            start = self.h2.ask(stream, ("x-bomb", "B" * 3900))
        (stream,) = self.streams(1)
        # 0xbe: the newest entry of the dynamic table, 16,000 times.
        bomb = HeadersFrame(stream, data=self.h2.head() + b"\xbe" * 16000, flags=["END_HEADERS", "END_STREAM"])
        return start + bomb.serialize()

    def big_lists(self):
        def fields(stream):
            return [(f"x-{stream}-{n}", "a" * 60) for n in range(150)]
        return b"".join(self.h2.ask(i, *fields(i)) for i in self.streams(4))

    def settings_flood(self):
        return SettingsFrame(0, settings={3: 100}).serialize() * 500

    def ping_flood(self):
        return PingFrame(0, opaque_data=b"12345678").serialize() * 500

    def priority_flood(self):
        return b"".join(PriorityFrame(3 + 2 * n, depends_on=0, stream_weight=n % 256).serialize() for n in range(500))

    def empty_data(self):
        start = self.h2.ask(1, end=False, method="POST") if self.first() else b""
        return start + DataFrame(1, data=b"").serialize() * 500

    def window_updates(self):
        return WindowUpdateFrame(0, window_increment=1).serialize() * 500

    def unknown_frames(self):
        return raw(0xBB, 0, b"x" * 64) * 500

    def zero_window(self):
        if self.first():
            return b"".join(self.h2.ask(i) for i in self.streams(128))
        time.sleep(0.2)
        return PingFrame(0, opaque_data=b"12345678").serialize()

    def too_many_streams(self):
        if self.first():
            return b"".join(self.h2.ask(i) for i in self.streams(1000))
        time.sleep(0.2)
        return PingFrame(0, opaque_data=b"12345678").serialize()


def raw(kind, stream, body):
    """A frame as hyperframe would refuse to make it."""
    return struct.pack(">I", len(body))[1:] + bytes([kind, 0]) + struct.pack(">I", stream) + body


# Name; whether our limits must end it: what is merely answered, or ignored cheaply, may go on.
FLOODS = [
    (Burst.rapid_reset, True), (Burst.made_you_reset_by_window, True), (Burst.made_you_reset_by_overflow, True),
    (Burst.made_you_reset_by_priority, True), (Burst.made_you_reset_by_data, True), (Burst.continuation_flood, True),
    (Burst.empty_continuations, True), (Burst.hpack_bomb, True), (Burst.big_lists, False),
    (Burst.settings_flood, True), (Burst.ping_flood, True), (Burst.empty_data, True),
    (Burst.priority_flood, False), (Burst.window_updates, False), (Burst.unknown_frames, False),
    (Burst.zero_window, False), (Burst.too_many_streams, False),
]


def flood(port, burst, until, ended):
    """One attacker: connects again whenever it is cut off."""
    stalled = burst in (Burst.zero_window, Burst.too_many_streams)
    while time.monotonic() < until:
        try:
            h2 = H2(port, settings={4: 0} if stalled else None)
        except OSError:
            ended.append("refused")
            time.sleep(0.05)
            continue
        state, alive = Burst(h2), True
        while alive and time.monotonic() < until:
            alive = h2.send(burst(state)) and h2.look()
        if not alive:
            h2.look()
            ended.append("cut off" if h2.goaway is None else f"GOAWAY {h2.goaway}")
        h2.close()


class Good:
    """The good client: one kept connection, and a new one each time. Each answer is timed and compared.

    It is a process of its own: within that of the attackers it would wait for them and not for the edge."""

    def __init__(self, port, ca):
        self.port, self.context = port, trusting(ca=ca)
        self.slowest, self.answers, self.faults = 0.0, 0, []
        self.body = None
        processes = multiprocessing.get_context("fork")
        self.over = processes.Event()
        self.told, self.tell = processes.Pipe(duplex=False)
        self.process = processes.Process(target=self._run, daemon=True)

    def __enter__(self):
        self.body = self._ask(self._connect())
        self.process.start()
        self.tell.close()
        return self

    def __exit__(self, *_):
        self.over.set()
        try:
            if not self.told.poll(30):
                raise EOFError
            self.slowest, self.answers, self.faults = self.told.recv()
        except EOFError:
            self.faults.append("the good client itself failed")
            self.process.kill()
        self.process.join()

    def _connect(self):
        return http.client.HTTPSConnection("localhost", self.port, timeout=60, context=self.context)

    def _ask(self, connection):
        connection.request("GET", SCRIPT)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise OSError(f"status {answer.status}")
        return body

    def _run(self):
        kept = self._connect()
        while not self.over.is_set():
            fresh = self._connect()
            for connection in (kept, fresh):
                began = time.monotonic()
                try:
                    if self._ask(connection) != self.body:
                        self.faults.append("other bytes")
                except (OSError, http.client.HTTPException) as error:
                    self.faults.append(repr(error))
                    kept.close()
                self.answers += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
            fresh.close()
            self.over.wait(0.02)
        kept.close()
        self.tell.send((self.slowest, self.answers, self.faults))


class Process:
    """The edge as the system sees it."""

    def __init__(self, pid):
        self.pid = pid

    def memory(self):
        with open(f"/proc/{self.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu(self):
        with open(f"/proc/{self.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def comes_to_rest(self):
        """Whether it uses less than a fifth of a processor within a minute."""
        for _ in range(120):
            before = self.cpu()
            time.sleep(0.5)
            if self.cpu() - before < 0.1:
                return True
        return False


def judged(tally, name, demo, attack, must_end=False):
    """Runs an attack beside the good client, and judges what it did."""
    process = Process(demo.pid)
    memory, descriptors = process.memory(), process.descriptors()
    peak, ended, faults = memory, [], []
    with Good(demo.https, demo.ca) as good:
        over = threading.Event()

        def watch():
            nonlocal peak
            while not over.wait(0.1) and demo.process.poll() is None:
                peak = max(peak, process.memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        attack(ended)
        over.set()
        watcher.join()
    if demo.process.poll() is not None:
        tally.check(False, name, f"the edge ended with {demo.process.returncode}")
        raise SystemExit(tally.close())
    if good.faults:
        faults.append(f"{len(good.faults)} bad answers: {good.faults[0]}")
    if not good.answers or good.slowest > GOOD_ANSWER_MAX:
        faults.append(f"a good client waited {good.slowest:.2f} s")
    if peak - memory > MEMORY_GROWTH_MAX:
        faults.append("memory")
    if must_end and not ended:
        faults.append("nobody ended it")
    if not process.comes_to_rest():
        faults.append("the processor does not rest")
    until = time.monotonic() + 20
    while process.descriptors() > descriptors + DESCRIPTORS_LEFT_MAX and time.monotonic() < until:
        time.sleep(0.1)
    if process.descriptors() > descriptors + DESCRIPTORS_LEFT_MAX:
        faults.append(f"{process.descriptors()} descriptors, {descriptors} before")
    kinds = ", ".join(f"{ended.count(kind)} x {kind}" for kind in sorted(set(ended)))
    figures = f"slowest good answer {good.slowest * 1000:.0f} ms of {good.answers}, memory +{(peak - memory) >> 20} MiB"
    tally.check(not faults, name, "; ".join(faults + [figures] + ([kinds] if kinds else [])))


def run_flood(port, burst):
    def attack(ended):
        until = time.monotonic() + SECONDS
        attackers = [threading.Thread(target=flood, args=(port, burst, until, ended)) for _ in range(CONNECTIONS)]
        for each in attackers:
            each.start()
        for each in attackers:
            each.join()
    return attack


def slow(port, count, seconds, begin, step):
    """`count` connections that begin, and then do `step` every half second."""
    def attack(ended):
        connections = []
        for _ in range(count):
            try:
                connections.append(begin(port))
            except OSError:
                ended.append("refused")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for each in connections:
                try:
                    each.settimeout(0.0005)
                    step(each)
                except (TimeoutError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    pass
                except OSError:
                    pass
            time.sleep(0.5)
        for each in connections:
            each.close()
    return attack


def plain(port, receive_buffer=None):
    raw_socket = socket.socket()
    if receive_buffer:
        raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw_socket.settimeout(5)
    raw_socket.connect(("127.0.0.1", port))
    return raw_socket


def over_tls(port, receive_buffer=None):
    return trusting().wrap_socket(plain(port, receive_buffer), server_hostname="localhost")


def begun(*lines):
    def begin(port):
        connection = over_tls(port)
        connection.sendall("".join(lines).replace("PORT", str(port)).encode())
        return connection
    return begin


def asked_slowly(port):
    connection = over_tls(port, 2048)
    # Many answers, so that they do not all fit into the buffers between us.
    connection.sendall(f"GET {SCRIPT} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode() * 20)
    return connection


def slow_attacks(demo):
    port = demo.https
    head = (f"GET {SCRIPT} HTTP/1.1\r\n", "Host: localhost:PORT\r\n")
    post = (f"POST {SCRIPT} HTTP/1.1\r\n", "Host: localhost:PORT\r\nContent-Length: 100000\r\n\r\n")
    nothing = lambda connection: connection.recv(1)  # noqa: E731
    return [
        ("300 connections without a handshake", slow(port, 300, SECONDS, plain, nothing)),
        ("300 handshakes without a request", slow(port, 300, SECONDS, over_tls, nothing)),
        ("300 slow headers", slow(port, 300, SECONDS, begun(*head), lambda it: it.send(b"X-a: b\r\n"))),
        ("300 slow bodies", slow(port, 300, SECONDS, begun(*post), lambda it: it.send(b"x"))),
        ("300 slow readers", slow(port, 300, SECONDS, asked_slowly, lambda it: it.recv(1))),
        ("300 connections of noise", slow(port, 300, SECONDS, plain, lambda it: it.send(os.urandom(64)))),
    ]


def slow_headers_end(tally, demo):
    """A header block that never ends is ended, within its deadline of 10 s and a margin."""
    connection = begun(f"GET {SCRIPT} HTTP/1.1\r\n", "Host: localhost:PORT\r\n")(demo.https)
    began, answer = time.monotonic(), b""
    connection.settimeout(0.5)
    while time.monotonic() - began < 60:
        try:
            connection.send(b"X-a: b\r\n")
            got = connection.recv(4096)
            answer += got
            if not got:
                break
        except TimeoutError:
            continue
        except OSError:
            break
    took = time.monotonic() - began
    tally.check(took < 30, "a header block that never ends is ended", f"after {took:.1f} s, {answer[:12]!r}")
    connection.close()


def few_files(tally):
    """Twice as many connections as there are files: it does not spin, serves whom it has, reaches its bucket, and recovers."""
    with Demo(before=("prlimit", f"--nofile={FILES}:{FILES}")) as demo:
        process, held = Process(demo.pid), []
        kept = http.client.HTTPSConnection("localhost", demo.https, context=trusting(), timeout=20)
        right = answered(kept, SCRIPT)
        for _ in range(2 * FILES):
            connection = socket.socket()
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", demo.https))
            held.append(connection)
        time.sleep(1)
        before, seconds = process.cpu(), 3
        time.sleep(seconds)
        share = (process.cpu() - before) / seconds
        tally.check(share < 0.6, f"{2 * FILES} connections and {FILES} files: it does not spin", f"{share:.0%} of a processor")
        tally.check(right and answered(kept, SCRIPT) == right, "who is connected is served")
        tally.check(answered(kept, PAGE), "what it does not hold is fetched", f"{process.descriptors()} descriptors")
        tally.check(demo.status("/readyz") == 200, "the operator is heard")
        for connection in held:
            connection.close()
        until, again = time.monotonic() + GOOD_ANSWER_MAX, None
        while again != right and time.monotonic() < until:
            new = http.client.HTTPSConnection("localhost", demo.https, context=trusting(), timeout=GOOD_ANSWER_MAX)
            again = answered(new, SCRIPT)
        tally.check(again == right, "and when they are gone, it takes new ones")


def answered(connection, path):
    """The body of a good answer, or None."""
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return body if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None


def main():
    tally = Tally("attacks")
    with Demo() as demo:
        # The first requests fill pools and caches: growth is counted from then on.
        judged(Tally("warm"), "no attack at all", demo, lambda ended: time.sleep(1))
        for burst, must_end in FLOODS:
            judged(tally, burst.__name__.replace("_", " "), demo, run_flood(demo.https, burst), must_end)
        for name, attack in slow_attacks(demo):
            judged(tally, name, demo, attack)
        slow_headers_end(tally, demo)
        tally.check(demo.stop() == 0, "it still drains and ends in order")
    few_files(tally)
    return tally.close()


if __name__ == "__main__":
    sys.exit(main())
