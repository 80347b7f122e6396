#!/usr/bin/env python3
"""Releases of real widgets: consecutive versions of auth0-js and of the Okta sign-in widget, as npm has them, are pushed,
promoted, rolled back, verified and swept, once against the embedded bucket and once against moto. Prints what each form of
each step has in bytes. Then a thousand small files, with their codings, and how long that takes. And then releases as
browsers meet them: promoted through a node, and loaded by Chromium (released.py).

Needs npm, chromium, and the edge (EDGE_BIN). ORIGIN_SYNC_BIN names the binary; without it, it is target/release/origin-sync of this checkout."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import released
from demo import TARGET, Tally, free_ports

BIN = os.environ.get("ORIGIN_SYNC_BIN", str(TARGET / "release" / "origin-sync"))
PACKAGES = TARGET / "ci-npm"
WIDGETS = {
    "auth0-js": ("auth0-js", "dist/auth0.min.js", ["9.29.1", "9.30.0", "9.30.1", "9.31.0", "9.32.0"]),
    "okta-signin-widget": ("@okta/okta-signin-widget", "dist/js/okta-sign-in.min.js", ["7.44.1", "7.44.2", "7.44.3"]),
}
# A thousand take minutes: RELEASE_FILES=1000 measures that.
FILES, FILE_BYTES = int(os.environ.get("RELEASE_FILES", "100")), 20_000
ACCESS = {"AWS_ACCESS_KEY_ID": "checker", "AWS_SECRET_ACCESS_KEY": "checkers-secret", "AWS_REGION": "us-east-1"}


def main():
    tally = Tally("releases")
    scratch = Path(tempfile.mkdtemp(prefix="releases-"))
    try:
        widgets = {name: fetch(*widget) for name, widget in WIDGETS.items()}
        for kind, start in (("embedded", embedded), ("moto", moto)):
            with start(scratch) as endpoint:
                pipeline = Pipeline(tally, scratch / kind, endpoint)
                for name, versions in widgets.items():
                    pipeline.release(kind, name, versions)
                if kind == "embedded":
                    released.main(Pipeline(tally, scratch / "edge", endpoint, "edge"), "auth0-js", widgets["auth0-js"])
                    pipeline.many_files()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return tally.close()


def fetch(package, path, versions):
    """Folders with the one file of each version that pages load."""
    folders = []
    for version in versions:
        folder = PACKAGES / f"{package.replace('/', '-')}-{version}"
        if not folder.exists():
            PACKAGES.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=PACKAGES) as draft:
                packed = subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=draft, check=True,
                                        capture_output=True, text=True)
                archive = Path(draft) / packed.stdout.split()[-1]
                subprocess.run(["tar", "-xf", archive, "-C", draft, f"package/{path}"], check=True)
                files = Path(draft) / "files"
                files.mkdir()
                shutil.move(Path(draft) / "package" / path, files)
                files.rename(folder)
        folders.append((version, folder))
    return folders


class Server:
    """A process that serves S3."""

    def __init__(self, command, endpoint, log):
        self.command, self.endpoint, self.log = command, endpoint, log

    def __enter__(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        host, port = self.endpoint.removeprefix("http://").split(":")
        until = time.monotonic() + 120
        while True:
            try:
                socket.create_connection((host, int(port)), 1).close()
                return self.endpoint
            except OSError:
                if time.monotonic() > until or self.process.poll() is not None:
                    raise RuntimeError(f"{self.command[0]} does not serve: {Path(self.log).read_text()}") from None
                time.sleep(0.05)

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def embedded(scratch):
    [port] = free_ports(1)
    command = [BIN, "bucket", "--dir", str(scratch / "bucket"), "--listen", f"127.0.0.1:{port}", "--bucket", "widgets",
               "--access-key-id", ACCESS["AWS_ACCESS_KEY_ID"], "--secret-access-key", ACCESS["AWS_SECRET_ACCESS_KEY"]]
    return Server(command, f"http://127.0.0.1:{port}", scratch / "bucket.log")


def moto(scratch):
    [port] = free_ports(1)
    command = [str(TARGET / "ci-venv" / "bin" / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    return Server(command, f"http://127.0.0.1:{port}", scratch / "moto.log")


class Pipeline:
    """Runs origin-sync as a release pipeline does."""

    def __init__(self, tally, dir, endpoint, prefix="cdn"):
        self.tally, self.dir, self.endpoint, self.prefix, self.bin = tally, dir, endpoint, prefix, BIN
        dir.mkdir()
        # The coded forms are made once, for the first bucket; the second one finds them, and checks them again.
        self.env = os.environ | ACCESS | {
            "AWS_ENDPOINT_URL": endpoint, "ORIGIN_SYNC_BUCKET": f"s3://widgets/{prefix}", "ORIGIN_SYNC_CACHE": str(dir.parent / "cache"),
            "ORIGIN_SYNC_RELEASE_KEY_FILE": "keys/release.key", "ORIGIN_SYNC_CHANNEL_KEY_FILE": "keys/channel.key",
            "ORIGIN_SYNC_TRUST": "keys/release.pub,keys/channel.pub",
        }
        self.run("keygen", "--out", "keys")
        make_bucket(self.env)

    def run(self, *words, code=0):
        done = subprocess.run([BIN, *words], cwd=self.dir, env=self.env, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=1800)
        if done.returncode != code:
            self.tally.check(False, f"origin-sync {' '.join(words)}", f"{done.returncode} instead of {code}: {done.stderr[-800:]}")
        return done

    def json(self, *words):
        done = self.run(*words, "--json")
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def release(self, kind, name, versions):
        check = self.tally.check
        print(f"\n  {name} on {kind}: bytes of each form\n"
              f"  {'version':>10} {'identity':>10} {'gzip':>9} {'br':>9} {'dcb':>8}  from the version before", flush=True)
        deltas = []
        for place, (version, folder) in enumerate(versions):
            report = self.json("push", str(folder), "--name", name, "--release", version)
            check(report.get("outcome") == "pushed", f"{name} {version} is pushed to {kind}")
            [row] = report.get("files", [{}])
            before = versions[place - 1][0] if place else None
            delta = next((delta["bytes"] for delta in row.get("dcb", []) if delta["from"] == before), None)
            deltas.append((delta, row.get("br")))
            print(f"  {version:>10} {row.get('identity', 0):>10,} {row.get('gzip') or 0:>9,} {row.get('br') or 0:>9,} "
                  f"{delta or 0:>8,}  {before or ''}", flush=True)
        good = [delta for delta, br in deltas[1:] if delta and br and delta * 5 < br]
        check(len(good) == len(versions) - 1, f"{name}: each step has a delta below a fifth of br")
        first, last = versions[0][0], versions[-1][0]
        self.run("promote", name, first, "--alias", "latest")
        self.run("promote", name, last, "--alias", "latest", "--alias", "9")
        status = self.json("status", name)
        channel = status[0]["channel"] if status else {}
        check(channel.get("serial") == 2 and channel["aliases"]["latest"]["version"] == last, f"{name}: aliases are promoted")
        self.run("rollback", name, "--alias", "latest")
        status = self.json("status", name)
        channel = status[0]["channel"] if status else {}
        check(channel.get("serial") == 3 and channel["aliases"]["latest"]["version"] == first, f"{name}: an alias is rolled back")
        verified = self.json("verify", name, *[version for version, _ in versions])
        wrong = sum(len(each["wrong"]) for each in verified)
        right = sum(each["right"] for each in verified)
        check(verified and wrong == 0, f"{name}: every form is read back and decoded", f"{right} right, {wrong} wrong")
        changed = self.dir / "changed"
        shutil.copytree(versions[0][1], changed, dirs_exist_ok=True)
        for file in changed.iterdir():
            file.write_bytes(file.read_bytes() + b"\n")
        refused = self.run("push", str(changed), "--name", name, "--release", first, code=3)
        check("is released already" in refused.stderr, f"{name}: other bytes under a version are refused")
        shutil.rmtree(changed)
        again = self.json("push", str(versions[0][1]), "--name", name, "--release", first)
        check(again.get("outcome") == "already" and again.get("blobs_stored") == 0, f"{name}: the same push again changes nothing")
        kept = self.json("gc", "--keep", "1", "--min-age-hours", "0", "--name", name)
        check(bool(kept.get("releases")), f"{name}: old releases are swept", f"{len(kept.get('releases', []))} of {len(versions)}")
        check(self.run("verify", name).returncode == 0, f"{name}: what aliases lead to is whole after the sweep")

    def many_files(self):
        """Many files of 20 KB, each another one, twice: nothing coded yet, and all of it."""
        folder = self.dir / "many"
        folder.mkdir()
        words = ["function", "return", "this", "value", "window", "document", "length", "prototype", "undefined", "event"]
        for number in range(FILES):
            state, parts, size = number + 1, [], 0
            while size < FILE_BYTES:
                state = (state * 1_103_515_245 + 12_345) % 2**31
                part = f"{words[(state >> 8) % len(words)]}({state >> 16});\n"
                parts.append(part)
                size += len(part)
            (folder / f"chunk-{number}.js").write_text("".join(parts)[:FILE_BYTES])
        jobs = os.cpu_count()
        for what in ("from nothing", "when all forms are at hand, under another version"):
            began = time.monotonic()
            report = self.json("push", "many", "--name", "many", "--release", "1" if what == "from nothing" else "2",
                               "--dictionaries", "0")
            seconds = time.monotonic() - began
            stored = report.get("blobs_stored", 0) + report.get("blobs_there", 0)
            self.tally.check(report.get("outcome") == "pushed" and stored >= 3 * FILES,
                             f"{FILES} files of {FILE_BYTES} bytes are pushed with gzip and br, {what}",
                             f"{seconds:.1f} s, {jobs} coders and 32 requests at once, {stored} blobs")


def make_bucket(env):
    """Makes the bucket where it is missing, by boto3 of the folder that the run installs."""
    script = ("import boto3, os\n"
              "s3 = boto3.client('s3', endpoint_url=os.environ['AWS_ENDPOINT_URL'])\n"
              "names = [bucket['Name'] for bucket in s3.list_buckets()['Buckets']]\n"
              "'widgets' in names or s3.create_bucket(Bucket='widgets')\n")
    subprocess.run([str(TARGET / "ci-venv" / "bin" / "python"), "-c", script], env=env, check=True)


if __name__ == "__main__":
    sys.exit(main())
