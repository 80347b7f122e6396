"""Starts and stops `edge demo` for the checks of this folder. It checks nothing itself.

EDGE_BIN names the binary; without it, it is target/release/edge of this checkout (CARGO_TARGET_DIR is heeded).
"""

import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target"))
PAGE = "/"
SCRIPT = "/login/1.0.0/login.js"


def edge_bin():
    return os.environ.get("EDGE_BIN", str(TARGET / "release" / "edge"))


def free_ports(count):
    """Ports that nobody listens on, on either family, at this moment."""
    sockets = [socket.socket(socket.AF_INET6) for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("::", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Demo:
    """A running demo with a state folder and ports of its own; `before` is a command that becomes it."""

    def __init__(self, *extra, before=()):
        self.state = tempfile.mkdtemp(prefix="edge-demo-")
        self.https, self.http, self.admin = free_ports(3)
        self.log = open(Path(self.state) / "stderr", "w+b")
        self.process = subprocess.Popen(
            [*before, edge_bin(), "demo", "--state", self.state, "--https", f"[::]:{self.https}", "--http",
             f"[::]:{self.http}", "--admin", f"127.0.0.1:{self.admin}", *extra],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log,
        )
        self.welcome = ""
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self):
        until = time.monotonic() + 60
        while "Ctrl-C" not in self.welcome:
            line = self.process.stdout.readline().decode()
            if not line or time.monotonic() > until:
                raise RuntimeError(f"the demo did not start: {self.errors()}")
            self.welcome += line
        while self.status("/readyz") != 200:
            if time.monotonic() > until:
                raise RuntimeError(f"the demo did not become ready: {self.errors()}")
            time.sleep(0.05)

    def status(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return None
        finally:
            connection.close()

    def errors(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    @property
    def pid(self):
        return self.process.pid

    @property
    def ca(self):
        return str(Path(self.state) / "ca" / "ca.pem")

    @property
    def leaf(self):
        return str(Path(self.state) / "ca" / "leaf.pem")

    def url(self, path, host="localhost"):
        return f"https://{host}:{self.https}{path}"

    def commands(self):
        """The commands that the demo tells the newcomer to try."""
        return re.findall(r"^ +(curl .*)$", self.welcome, re.MULTILINE)

    def stop(self):
        """Ends it as Ctrl-C does. Returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.process.stdout.close()
        self.log.close()
        shutil.rmtree(self.state, ignore_errors=True)
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def trusting(alpn=("http/1.1",), ca=None):
    """A TLS context that trusts `ca`, or anybody."""
    context = ssl.create_default_context(cafile=ca)
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn))
    return context


class Tally:
    """Counts and prints what passed and what failed."""

    def __init__(self, name):
        self.name, self.passed, self.failed = name, 0, 0

    def check(self, good, what, detail=""):
        self.passed, self.failed = self.passed + bool(good), self.failed + (not good)
        print(f"  {'pass' if good else 'FAIL'}  {what}{f'  ({detail})' if detail else ''}", flush=True)
        return bool(good)

    def close(self):
        """Prints the sum; returns the exit code."""
        print(f"{self.name}: {self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0
