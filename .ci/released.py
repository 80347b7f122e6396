"""A release through a real node to a real browser: promoted with prewarming, canary, verification and a way back; then loaded
by Chromium, which holds one version and is sent the difference to the next, runs what was signed, and nothing else.

The page is of another origin and of the same site: of other sites Chromium uses dictionaries only where it lets them keep
cookies. Called by releases.py, with a pipeline that has a bucket of its own."""

import hashlib
import http.client
import json
import re
import signal
import subprocess
import time
from pathlib import Path

import boto3

import browser
from demo import edge_bin, free_ports

TOKEN = "a token for this check alone"
EVIL = b"window.evil = true;"
PATIENCE = 120

CONFIG = """
name = "edge-1"
workers = 1
[listen]
https = ["127.0.0.1:{https}", "[::1]:{https}"]
admin = "127.0.0.1:{admin}"
[admin]
tokens = [{{ name = "pipeline", sha256 = "{token}", scopes = ["admin"] }}]
[[tls.certificate]]
chain = "leaf.pem"
key = "leaf.key"
[origin.assets]
kind = "s3"
credentials = {{ access_key_id = "{id}", secret_access_key_file = "s3.secret" }}
buckets = [{{ name = "widgets", region = "us-east-1", endpoint = "{endpoint}", path_style = true, prefix = "{prefix}/" }}]
[origin.pages]
kind = "s3"
credentials = {{ access_key_id = "{id}", secret_access_key_file = "s3.secret" }}
buckets = [{{ name = "widgets", region = "us-east-1", endpoint = "{endpoint}", path_style = true, prefix = "pages/" }}]
[[site]]
hosts = ["cdn.releases.localhost"]
origin = "assets"
preset = "embed"
releases = ["{name}"]
trust = [{trust}]
[[site]]
hosts = ["app.releases.localhost"]
origin = "pages"
index = "index.html"
[releases]
state = "state"
poll = "1s"
[log]
access = {{ format = "json", path = "access.log" }}
[drain]
delay = "0s"
"""

# What came of a script tag: whether it loaded, what it weighed on the wire and decoded, and what ran.
LOAD = """
const [url, cross, integrity, done] = arguments;
const script = document.createElement('script');
script.src = url;
if (cross) script.crossOrigin = 'anonymous';
if (integrity) script.integrity = integrity;
const end = outcome => setTimeout(() => {
    const entry = performance.getEntriesByName(url).pop() || {};
    done({outcome, encoded: entry.encodedBodySize, decoded: entry.decodedBodySize, coding: entry.contentEncoding || '',
          ran: typeof window.auth0, evil: typeof window.evil});
}, 100);
script.onload = () => end('load');
script.onerror = () => end('error');
document.head.append(script);
"""


def main(pipeline, name, versions):
    [spoilt, old, new] = versions[-3:]
    reports = {version: pipeline.json("push", str(folder), "--name", name, "--release", version)
               for version, folder in (spoilt, old, new)}
    with Edge(pipeline, name) as edge:
        promote(pipeline, edge, name, old[0], new[0], spoilt[0])
        [row] = reports[new[0]]["files"]
        [delta] = [delta["bytes"] for delta in row["dcb"] if delta["from"] == old[0]]
        with browser.Browser(edge) as driver:
            load(pipeline, edge, driver, name, (spoilt[0], old[0], new[0]), delta)


class Edge:
    """A node with a site for the release and one for a page that loads it."""

    def __init__(self, pipeline, name):
        self.dir, self.env = pipeline.dir, pipeline.env
        self.https, self.admin = free_ports(2)
        self.url = f"https://cdn.releases.localhost:{self.https}"
        self.leaf, self.ca = self.dir / "leaf.pem", self.dir / "ca.pem"
        certificate(self.dir)
        keys = [(self.dir / "keys" / f"{role}.pub").read_text().strip() for role in ("release", "channel")]
        (self.dir / "s3.secret").write_text(self.env["AWS_SECRET_ACCESS_KEY"])
        (self.dir / "s3.secret").chmod(0o600)
        (self.dir / "token").write_text(TOKEN)
        (self.dir / "token").chmod(0o600)
        (self.dir / "edge.toml").write_text(CONFIG.format(
            https=self.https, admin=self.admin, token=hashlib.sha256(TOKEN.encode()).hexdigest(), name=name,
            id=self.env["AWS_ACCESS_KEY_ID"], endpoint=pipeline.endpoint, prefix=pipeline.prefix,
            trust=", ".join(f'"{key}"' for key in keys)))
        self.s3 = boto3.client("s3", endpoint_url=pipeline.endpoint, region_name="us-east-1",
                               aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
                               aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"])
        self.prefix = pipeline.prefix
        self.s3.put_object(Bucket="widgets", Key="pages/index.html", ContentType="text/html",
                           Body=b"<!doctype html><html lang=en><title>page</title>")

    def __enter__(self):
        with open(self.dir / "edge.log", "wb") as log:
            self.process = subprocess.Popen([edge_bin(), "run", "-c", str(self.dir / "edge.toml")], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        until = time.monotonic() + PATIENCE
        while self.ready() is None:
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError(f"the edge does not serve: {(self.dir / 'edge.log').read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ready(self):
        """What /readyz says, once it says that it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            return answer.read().decode() if answer.status == 200 else None
        except OSError:
            return None
        finally:
            connection.close()

    def metric(self, line):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        found = re.search(rf"^{re.escape(line)} (\d+)$", text, re.MULTILINE)
        return int(found.group(1)) if found else None

    def words(self, door=None, kind="--edge"):
        return [kind, f"http://127.0.0.1:{self.admin}=127.0.0.1:{door or self.https}", "--site", self.url, "--ca", str(self.ca),
                "--token-file", str(self.dir / "token")]

    def spoil(self, name, version):
        """Replaces every form of a version by something else, as somebody may who holds the bucket."""
        manifest = json.loads(self.read(f"releases/{name}/{version}.json"))
        for file in manifest["payload"]["files"]:
            for form in [file, *file.get("codings", [])]:
                self.s3.put_object(Bucket="widgets", Key=f"{self.prefix}/blobs/sha256/{form['sha256']}", Body=EVIL)

    def read(self, key):
        return self.s3.get_object(Bucket="widgets", Key=f"{self.prefix}/{key}")["Body"].read()


def certificate(dir):
    """A certificate for both hosts, by an authority of its own."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for words in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=releases check", "-days", "2"],
        ["req", *key, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=cdn.releases.localhost",
         "-addext", "subjectAltName=DNS:cdn.releases.localhost,DNS:app.releases.localhost"],
        ["x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-copy_extensions", "copy", "-days", "2",
         "-out", "leaf.pem"],
    ):
        subprocess.run(["openssl", *words], cwd=dir, check=True, capture_output=True)
    (Path(dir) / "leaf.key").chmod(0o600)


def promote(pipeline, edge, name, old, new, spoilt):
    check = pipeline.tally.check
    print(f"\n  {name} through a node", flush=True)
    report = pipeline.json("promote", name, old, "--alias", "latest", *edge.words())
    [node] = report.get("nodes") or [{}]
    check(node.get("served", 0) > 2 and node.get("prewarmed", 0) > 2 and not node["wrong"] and node["serial"] == 1,
          f"{old} is prewarmed, promoted and verified", json.dumps(node))
    report = pipeline.json("promote", name, new, "--alias", "latest", "--alias", "9", *edge.words(kind="--canary"),
                           "--auto-rollback")
    [node] = report.get("nodes") or [{}]
    check(not node.get("wrong", [True]) and node["serial"] == 2 and not report["rolled_back"],
          f"{new} is promoted by way of a canary", f"{node.get('prewarmed')} forms fetched, {node.get('served')} served")
    # A node whose public door does not answer: what was flipped goes back.
    [nobody] = free_ports(1)
    done = pipeline.run("promote", name, old, "--alias", "latest", *edge.words(door=nobody), "--auto-rollback", code=3)
    channel = status(pipeline, name)
    check(channel["serial"] == 4 and channel["aliases"]["latest"]["version"] == new,
          "a promotion that a node does not serve goes back by itself", done.stderr.strip().splitlines()[-1][:120])
    edge.spoil(name, spoilt)
    words = ["promote", name, spoilt, "--alias", "latest", *edge.words()]
    done = subprocess.run([pipeline.bin, *words], cwd=pipeline.dir, env=pipeline.env, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=300)
    check(done.returncode != 0 and "nothing was changed" in done.stderr and status(pipeline, name)["serial"] == 4,
          "a release with spoilt blobs is not promoted", done.stderr.strip().splitlines()[0][:120])
    # An older channel, which was good once.
    key = f"{edge.prefix}/channels/{name}.json"
    good = edge.read(f"channels/{name}.json")
    edge.s3.put_object(Bucket="widgets", Key=key, Body=re.sub(rb'"serial":4', b'"serial":9', good))
    check(until(lambda: "degraded: release" in (edge.ready() or "")), "a forged channel leaves the node ready, and degraded")
    edge.s3.put_object(Bucket="widgets", Key=key, Body=good)
    check(until(lambda: edge.ready() == "ready\n"), "and it is well again with the good one")


def status(pipeline, name):
    [state] = pipeline.json("status", name)
    return state["channel"]


def load(pipeline, edge, driver, name, versions, delta):
    spoilt, old, new = versions
    check = pipeline.tally.check
    file = "auth0.min.js"

    def script(segment, cross=True, integrity="", query=""):
        driver.get(f"https://app.releases.localhost:{edge.https}/")
        return driver.execute_async_script(LOAD, f"{edge.url}/{name}/{segment}/{file}{query}", cross, integrity)

    driver.set_script_timeout(PATIENCE)
    print(f"\n  {name} in {driver.capabilities['browserName']} {driver.capabilities['browserVersion']}", flush=True)
    first = script(old)
    check(first["outcome"] == "load" and first["ran"] == "object" and first["encoded"] < first["decoded"],
          f"{old} loads from another origin and runs", first)
    # The browser takes the dictionary in behind the page's back.
    second = {}
    for attempt in range(20):
        time.sleep(0.5)
        second = script(new, query=f"?{attempt}" if attempt else "")
        if second["encoded"] == delta:
            break
    check(second["encoded"] == delta and second["ran"] == "object" and second["outcome"] == "load",
          f"{new} arrives as the difference of {delta} bytes, and runs", second)
    # It is written behind the answers' backs.
    for _ in range(200):
        lines = (edge.dir / "access.log").read_text().splitlines(keepends=True)
        codings = [json.loads(line)["coding"] for line in lines if f"/{new}/{file}" in line and line.endswith("\n")]
        if "dcb" in codings:
            break
        time.sleep(0.1)
    check("dcb" in codings, "the node's log says so", " ".join(codings[-5:]))
    plain = script("9", cross=False)
    check(plain["outcome"] == "load" and plain["ran"] == "object" and plain["encoded"] > delta,
          "a plain script tag works, without deltas", plain)
    bad = script(spoilt)
    check(bad["outcome"] == "error" and bad["ran"] == "undefined" and bad["evil"] == "undefined",
          "a spoilt blob does not run", bad)
    rejected = edge.metric('edge_integrity_rejections_total{what="blob"}')
    check(rejected, "the node counts what it rejected", rejected)
    pinned = {role: (edge.dir / "keys" / f"{role}.pub").read_text().strip().split(":", 1)[1] for role in ("release", "channel")}
    for segment, right, wrong in ((new, "release", "channel"), ("latest", "channel", "release")):
        good = script(segment, integrity=pinned[right], query="?right")
        check(good["outcome"] == "load" and good["ran"] == "object", f"{segment} runs under the {right} key that it is signed with", good)
        bad = script(segment, integrity=pinned[wrong], query="?wrong")
        check(bad["outcome"] == "error" and bad["ran"] == "undefined", f"{segment} does not run under another key", bad)
    log = " ".join(entry["message"] for entry in driver.get_log("browser"))
    check(re.search(r"integrity|signature", log, re.IGNORECASE), "the browser says why", log[-200:])


def until(done):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.1)
    return False
