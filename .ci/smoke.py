#!/usr/bin/env python3
"""The newcomer's first minute: starts the demo as README.md says, and runs each curl command of README.md and of the
demo itself to the letter. Needs curl. With EDGE_BIN, that binary stands for `cargo run --release --bin edge --`."""

import os
import re
import signal
import subprocess
import sys
import threading

from demo import TOP, Tally

START = "cargo run --release --bin edge -- demo"


def main():
    tally = Tally("smoke")
    readme = (TOP / "README.md").read_text()
    blocks = re.findall(r"<!-- tried -->\n```sh\n(.*?)```", readme, re.DOTALL)
    tally.check(START in readme, "README.md names the command that starts the demo")
    tally.check(len(blocks) >= 2, "README.md has commands to try", f"{len(blocks)} blocks")
    binary = os.environ.get("EDGE_BIN")
    process = subprocess.Popen(
        [binary, "demo"] if binary else START.split(), cwd=TOP, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )
    giving_up = threading.Timer(1800, process.kill)
    giving_up.start()
    try:
        welcome = ""
        for line in process.stdout:
            welcome += line
            if "Ctrl-C" in line:
                break
        if not tally.check("Portico is up" in welcome, "the demo starts, on the ports that README.md names"):
            return tally.close()
        tried = re.findall(r"^ +(curl .*)$", welcome, re.MULTILINE)
        tally.check(len(tried) == 3, "the demo names three commands to try")
        for command in tried:
            run(tally, command)
        for block in blocks:
            for command in re.sub(r"\\\n\s*", "", block).splitlines():
                if command.strip() and not command.startswith("#"):
                    run(tally, command)
        metrics = subprocess.run(["curl", "-s", "http://127.0.0.1:9180/metrics"], capture_output=True, text=True).stdout
        for name in sorted(set(re.findall(r"`(edge_\w+[a-z])`", readme))):
            tally.check(f"# HELP {name} " in metrics, f"README.md names a metric that there is: {name}")
    finally:
        giving_up.cancel()
        # cargo becomes the program that it runs, where the system can do that; else the program is its child.
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        for pid in [int(child) for child in children] or [process.pid]:
            os.kill(pid, signal.SIGINT)
        try:
            code = process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            code = None
    tally.check(code == 0, "Ctrl-C drains and ends", f"exit code {code}")
    return tally.close()


def run(tally, command):
    """Runs a command; what follows `#->` in it must be found in what it prints."""
    command, _, wanted = (part.strip() for part in command.partition("#->"))
    binary = os.environ.get("EDGE_BIN")
    typed = command.replace("target/release/edge", binary) if binary else command
    done = subprocess.run(["bash", "-o", "pipefail", "-c", typed], cwd=TOP, capture_output=True, text=True, timeout=60)
    output = done.stdout + done.stderr
    tally.check(done.returncode == 0 and wanted in output, command, "" if wanted in output else output[-300:])


if __name__ == "__main__":
    sys.exit(main())
