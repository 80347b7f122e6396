#!/usr/bin/env python3
"""The HTTP cache conformance suite (npm package http-cache-tests) through a real edge that has an HTTP origin and a strict
site. Each test that does not pass must stand in edge/tests/conformance/expected.toml with its reason; the run fails on
any other, on an exception that passes by now, and on counts that are not those of the file.

    conformance.py                  as .ci/run does it; needs node, and npm where the suite is not installed yet
    conformance.py TEST...          only these tests, with every request and response; judges nothing
    conformance.py --against URL    counts what some other cache passes, whose origin is --origin PORT; judges nothing

EDGE_BIN names the binary, as in demo.py."""

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import contextmanager
from pathlib import Path

from demo import TARGET, TOP, edge_bin, free_ports

VERSION = "0.4.5"
EXPECTED = TOP / "edge" / "tests" / "conformance" / "expected.toml"
NODE = TARGET / "ci-node"
SUITE = NODE / "node_modules" / "http-cache-tests"
# What the suite calls a test whose answer is neither good nor bad: yes, or no.
KINDS = {"required": "required", "optimal": "optional", "check": "check"}

SITE = """
name = "portico"
[listen]
plain = ["127.0.0.1:{plain}"]
admin = "off"
[drain]
delay = "0s"
[origin.suite]
kind = "http"
url = "http://127.0.0.1:{origin}"
timeouts = {{ attempts = 1 }}
[[site]]
hosts = ["127.0.0.1"]
origin = "suite"
preset = "plain"
strict = true
query = "keep"
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--against", metavar="URL")
    parser.add_argument("--origin", metavar="PORT", type=int)
    parser.add_argument("tests", nargs="*", metavar="TEST")
    asked = parser.parse_args()
    install()
    plain, free = free_ports(2)
    origin = asked.origin or free
    with tempfile.TemporaryDirectory(prefix="edge-conformance-") as scratch:
        with suite_origin(origin, scratch):
            if asked.against:
                tests = run(asked.against, asked.tests)
            else:
                with edge(plain, origin, scratch):
                    tests = run(f"http://127.0.0.1:{plain}", asked.tests)
                    if not asked.tests:
                        tests = set_up_again(f"http://127.0.0.1:{plain}", tests)
    if asked.tests:
        for test in tests:
            print(f"{test['id']}: {'passed' if test['result'] is True else test['result']}")
        return 0
    outcomes = judge(tests)
    return summary(tests, outcomes) if asked.against else verdict(tests, outcomes)


def install():
    """The suite, at its version. npm itself is among its dependencies, and is replaced by nothing."""
    installed = SUITE / "package.json"
    if installed.is_file() and json.loads(installed.read_text())["version"] == VERSION:
        return
    NODE.mkdir(parents=True, exist_ok=True)
    package = {"private": True, "dependencies": {"http-cache-tests": VERSION}}
    (NODE / "package.json").write_text(json.dumps(package))
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(command, cwd=NODE, check=True, stdin=subprocess.DEVNULL, timeout=600)


@contextmanager
def running(command, ready, log, **options):
    """Runs a command until the block ends; begins the block when the port answers."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options)
        try:
            until = time.monotonic() + 120
            while not answers(ready):
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{command[0]} does not serve:\n{Path(log).read_text(errors='replace')[-2000:]}")
                time.sleep(0.05)
            yield
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} died:\n{Path(log).read_text(errors='replace')[-2000:]}")
        finally:
            process.kill()
            process.wait()


def answers(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/state/none")
        connection.getresponse().read()
        return True
    except OSError:
        return False
    finally:
        connection.close()


def suite_origin(port, scratch):
    """The server of the suite, which takes its settings the way npm passes them on."""
    settings = {"npm_config_protocol": "http", "npm_config_port": str(port), "npm_config_pidfile": f"{scratch}/pid"}
    return running(["node", "server/server.mjs"], port, f"{scratch}/origin.log", cwd=SUITE, env={**os.environ, **settings})


def edge(plain, origin, scratch):
    config = Path(scratch) / "edge.toml"
    config.write_text(SITE.format(plain=plain, origin=origin))
    return running([edge_bin(), "run", "-c", str(config)], plain, f"{scratch}/edge.log")


def set_up_again(base, tests):
    """On a busy machine a response that is fresh for seconds is stale before the test has asked for it again: what could not
    be set up gets a second try, with fewer beside it."""
    late = [test["id"] for test in tests if test.get("result") is not True and test.get("result", ["Setup"])[0] == "Setup"]
    again = {test["id"]: test for test in run(base, late, quiet=True)} if late else {}
    return [again.get(test["id"], test) for test in tests]


def run(base, only, quiet=False):
    command = ["node", "--no-warnings", str(TOP / ".ci" / "conformance.mjs"), str(SUITE), base, *only]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=600,
                          stderr=None if only and not quiet else subprocess.DEVNULL)
    if done.returncode != 0:
        raise SystemExit(f"the suite ended with {done.returncode}")
    return json.loads(done.stdout)


def judge(tests):
    """What became of each test, by its name: "passed", or why not. As the suite's own pages count it, a test whose
    prerequisite did not pass is not passed either."""
    by_id = {test["id"]: test for test in tests}
    outcomes = {}

    def outcome(test):
        if test["id"] not in outcomes:
            broken = [need for need in test["needs"] if outcome(by_id[need]) != "passed"]
            result = test.get("result", ["Setup", "was not run"])
            if broken:
                outcomes[test["id"]] = f"needs {', '.join(broken)}"
            elif result is True:
                outcomes[test["id"]] = "passed"
            else:
                outcomes[test["id"]] = f"{'set-up: ' if result[0] == 'Setup' else ''}{result[1]}"
        return outcomes[test["id"]]

    for test in tests:
        outcome(test)
    return outcomes


def counts(tests, outcomes):
    passed, all_of = dict.fromkeys(KINDS.values(), 0), dict.fromkeys(KINDS.values(), 0)
    for test in tests:
        all_of[KINDS[test["kind"]]] += 1
        passed[KINDS[test["kind"]]] += outcomes[test["id"]] == "passed"
    return passed, all_of


def summary(tests, outcomes):
    """Prints what did not pass, and the counts."""
    for kind, called in KINDS.items():
        print(f"{called}, not passed:" if called != "check" else "check, answered no:")
        for test in tests:
            if test["kind"] == kind and outcomes[test["id"]] != "passed":
                print(f"  {test['id']}: {outcomes[test['id']]}")
    passed, all_of = counts(tests, outcomes)
    print("conformance: " + ", ".join(f"{called} {passed[called]} of {all_of[called]}" for called in passed))
    return 0


def verdict(tests, outcomes):
    """Compares with what is expected; returns the exit code."""
    summary(tests, outcomes)
    with open(EXPECTED, "rb") as file:
        expected = tomllib.load(file)
    passed, _ = counts(tests, outcomes)
    excused = {called: expected.get(called, {}) for called in KINDS.values()}
    complaints = []
    for test in tests:
        name, called = test["id"], KINDS[test["kind"]]
        reason, good = excused[called].pop(name, None), outcomes[name] == "passed"
        if not good and reason is None:
            complaints.append(f"{called} test {name} no longer passes: {outcomes[name]}\n    it is: {test['name']}")
        if good and reason is not None:
            complaints.append(f"{called} test {name} passes by now: take it out of {EXPECTED.name}")
    for called, left in excused.items():
        complaints += [f"{EXPECTED.name} excuses {called} test {name}, which is not in the suite" for name in left]
    for called, count in passed.items():
        if expected["passed"][called] != count:
            complaints.append(f"{called}: {count} passed, {EXPECTED.name} says {expected['passed'][called]}")
    if expected["suite"] != VERSION:
        complaints.append(f"{EXPECTED.name} is for version {expected['suite']}")
    for complaint in complaints:
        print(f"  FAIL  {complaint}")
    print(f"conformance: {'as expected' if not complaints else f'{len(complaints)} complaints'}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
