#!/usr/bin/env python3
"""Certificates of a fleet against somebody else's programs: pebble and its challenge test server, knot, moto, sslyze.

Needs pebble, pebble-challtestsrv, knotd, openssl, and boto3, moto, cryptography, sslyze of .ci/requirements.txt. EDGE_BIN and
ORIGIN_SYNC_BIN name the binaries; without them they are those of target/release. Names of scenarios as arguments run these alone.

Two scenarios run at a time, each with processes, ports and a bucket of its own. None of them depends on how fast the machine is:
what has to happen first is waited for, and what must not happen before is held up.
"""

import base64
import concurrent.futures
import contextlib
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
from pathlib import Path

import boto3
from botocore.config import Config

from demo import TARGET, edge_bin

PATIENCE = 240
AT_ONCE = 2
BUCKET, PREFIX = "control", "certificates/"


def wait_until(what, done):
    """Waits until `done` returns something true, and returns that."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = done()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


# Below the ports that the kernel gives to connections: what is free stays free until it is bound.
PORTS = itertools.cycle(range(12_000 + os.getpid() % 7_000, 32_000))
PORTS_LOCK = threading.Lock()


def free_ports(count):
    """Ports that nobody listens on at this moment, and that no other scenario is given."""
    found = []
    with PORTS_LOCK:
        while len(found) < count:
            port = next(PORTS)
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)), \
                    socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
                datagrams.bind(("127.0.0.1", port))
                found.append(port)
    return found


def listening(port, host="127.0.0.1"):
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


class Lab:
    """A scenario's processes and files. Everything ends with it."""

    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="edge-certs-"))
        self.processes, self.said = [], []
        self.key = base64.b64encode(secrets.token_bytes(32)).decode()
        (self.dir / "store.key").write_text(self.key)
        self.bucket_port = free_ports(1)[0]

    def begin(self):
        """Starts the bucket that the nodes share."""
        binary = os.environ.get("ORIGIN_SYNC_BIN", str(TARGET / "release" / "origin-sync"))
        self.start("bucket", [binary, "bucket", "--dir", str(self.dir / "bucket"), "--listen",
                              f"127.0.0.1:{self.bucket_port}", "--access-key-id", "lab",
                              "--secret-access-key", "labs-secret"])
        (self.dir / "s3.secret").write_text("labs-secret")
        wait_until("the bucket", lambda: listening(self.bucket_port))
        self.s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.bucket_port}", region_name="us-east-1",
                               aws_access_key_id="lab", aws_secret_access_key="labs-secret",
                               config=Config(s3={"addressing_style": "path"}))
        self.s3.create_bucket(Bucket=BUCKET)

    def start(self, name, command, env=None):
        log = open(self.dir / f"{name}.log", "ab")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir,
                                   env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true", "NO_COLOR": "1", **(env or {})})
        log.close()
        self.processes.append(process)
        return process

    def log(self, name):
        return (self.dir / f"{name}.log").read_text(errors="replace")

    def say(self, text):
        self.said.append(text)

    def close(self, failed):
        for process in reversed(self.processes):
            with contextlib.suppress(OSError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        if failed:
            for log in sorted(self.dir.glob("*.log")):
                self.say(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
        shutil.rmtree(self.dir, ignore_errors=True)

    # The CA.

    def pebble(self, http_port=1, tls_port=1, dns=None, nonce_reject=5, alternates=0, binding=None):
        """Starts a CA; its API is trusted by ca.pem. Returns its directory."""
        if not (self.dir / "ca.pem").exists():
            make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
            for name, subject, extra in (
                ("ca", "/CN=CA of the API", []),
                ("api", "/CN=localhost", ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE",
                                          "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]),
            ):
                subprocess.run([*make, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", subject, *extra],
                               cwd=self.dir, check=True, capture_output=True)
        api, self.management = free_ports(2)
        config = {"listenAddress": f"127.0.0.1:{api}", "managementListenAddress": f"127.0.0.1:{self.management}",
                  "certificate": "api.pem", "privateKey": "api.key", "httpPort": http_port, "tlsPort": tls_port,
                  "ocspResponderURL": "", "externalAccountBindingRequired": bool(binding)}
        if binding:
            config["externalAccountMACKeys"] = binding
        name = f"pebble-{api}"
        (self.dir / f"{name}.json").write_text(json.dumps({"pebble": config}))
        env = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": str(nonce_reject), "PEBBLE_AUTHZREUSE": "0",
               "PEBBLE_ALTERNATE_ROOTS": str(alternates)}
        dns = dns or f"127.0.0.1:{self.challtestsrv()}"
        self.ca_log = name
        self.start(name, ["pebble", "-config", f"{name}.json", "-dnsserver", dns, "-strict", "false"], env)
        wait_until("pebble", lambda: listening(api))
        return f"https://localhost:{api}/dir"

    def challtestsrv(self):
        """The DNS in which every name leads here."""
        dns, management = free_ports(2)
        self.start(f"challtestsrv-{dns}", ["pebble-challtestsrv", "-defaultIPv6", "", "-defaultIPv4", "127.0.0.1",
                                           "-dns01", f"127.0.0.1:{dns}", "-http01", "", "-https01", "", "-tlsalpn01", "",
                                           "-management", f"127.0.0.1:{management}"])
        wait_until("the challenge test server", lambda: listening(management))
        self.dns, self.dns_management = dns, management
        return dns

    def tell_dns(self, what, **record):
        """Changes what that DNS says."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.dns_management}/{what}", json.dumps(record).encode())
        urllib.request.urlopen(request, timeout=60).close()

    def orders(self):
        return len(re.findall(r"Added order ", self.log(self.ca_log)))

    # The nodes.

    def node(self, name, directory, **more):
        return Node(self, name, directory, **more)

    @staticmethod
    def slot_key(name, kind="ecdsa"):
        return f"{PREFIX}names/{name.replace('*', '_')}/{kind}/current.json"

    def slot(self, name, kind="ecdsa"):
        key = self.slot_key(name, kind)
        with contextlib.suppress(self.s3.exceptions.NoSuchKey):
            return json.loads(self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        return {}

    def take_lease(self, name):
        """A lease of somebody who is gone: nodes that look now order nothing."""
        held = {"lease": {"owner": "someone", "expires": int(time.time()) + 3600}}
        self.s3.put_object(Bucket=BUCKET, Key=self.slot_key(name), Body=json.dumps(held))

    def drop_lease(self, name):
        self.s3.delete_object(Bucket=BUCKET, Key=self.slot_key(name))

    def contents(self):
        listed = self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return sorted((entry["Key"], entry["ETag"]) for entry in listed)


class Node:
    """A node with its configuration; it runs once `start` is called."""

    def __init__(self, lab, name, directory, names=("cdn.test",), challenge="http-01", acme="", poll="1s", lease="5s",
                 ports=None):
        self.lab, self.name, self.names, self.directory = lab, name, names, directory
        self.https, self.http, self.admin = ports or free_ports(3)
        self.config = lab.dir / f"{name}.toml"
        self.process = None
        quoted = ", ".join(f'"{each}"' for each in names)
        self.config.write_text(f"""
workers = 1
[listen]
https = ["127.0.0.1:{self.https}"]
http = ["127.0.0.1:{self.http}"]
admin = "127.0.0.1:{self.admin}"
[tls.store]
bucket = {{ name = "{BUCKET}", region = "us-east-1", prefix = "{PREFIX}", endpoint = "http://127.0.0.1:{lab.bucket_port}", path_style = true }}
credentials = {{ access_key_id = "lab", secret_access_key_file = "s3.secret" }}
key_file = "store.key"
state = "state-{name}"
node = "{name}"
poll = "{poll}"
lease = "{lease}"
[[tls.acme]]
names = [{quoted}]
accept_terms = true
directory = "{directory}"
challenge = "{challenge}"
roots = "ca.pem"
{acme}
[origin.assets]
kind = "s3"
credentials = "anonymous"
buckets = [{{ name = "{BUCKET}", region = "us-east-1", endpoint = "http://127.0.0.1:{lab.bucket_port}", path_style = true }}]
[[site]]
hosts = [{quoted}]
origin = "assets"
""")

    def start(self):
        self.process = self.lab.start(self.name, [edge_bin(), "run", "-c", str(self.config)])
        return self

    def wait(self):
        wait_until(f"{self.name} to listen", lambda: listening(self.https) and listening(self.http))
        return self

    def command(self, *arguments):
        done = subprocess.run([edge_bin(), "certs", *arguments, "-c", str(self.config)], cwd=self.lab.dir,
                              capture_output=True, text=True, timeout=PATIENCE)
        return done.returncode, done.stdout + done.stderr

    def get(self, path):
        """What the http port answers."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.http), 60) as stream:
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {self.names[0]}\r\nConnection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: stream.recv(65536), b"")).decode(errors="replace")
        return ""

    def connect(self, name=None, context=None, session=None):
        context = context or unverified()
        raw = socket.create_connection(("127.0.0.1", self.https), 60)
        return context.wrap_socket(raw, server_hostname=name or self.names[0], session=session)

    def leaf(self, name=None):
        """The certificate that is served, as DER; nothing while there is none."""
        with contextlib.suppress(OSError), self.connect(name) as stream:
            return stream.getpeercert(True)
        return None


def unverified():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def subject(der):
    """Names and issuer of a certificate."""
    from cryptography import x509
    certificate = x509.load_der_x509_certificate(der)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return sorted(names.get_values_for_type(x509.DNSName)), certificate.issuer.rfc4514_string()


def served(nodes, what="all nodes to serve one certificate"):
    """Waits until all of them serve the same certificate, and returns it."""
    def same():
        leaves = [node.leaf() for node in nodes]
        return leaves[0] if leaves[0] and all(leaf == leaves[0] for leaf in leaves) else None
    return wait_until(what, same)


class Gate:
    """Stands before a port. It says when somebody asks, and lets nothing through until it is opened and that port is listened
    on."""

    def __init__(self, target):
        self.target, self.asked, self.open = target, threading.Event(), threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.pass_on, args=(client,), daemon=True).start()

    def pass_on(self, client):
        with client, contextlib.suppress(OSError):
            self.asked.set()
            self.open.wait(PATIENCE)
            wait_until("the one that is asked to listen", lambda: listening(self.target))
            with socket.create_connection(("127.0.0.1", self.target), 60) as other:
                for each in (client, other):
                    each.settimeout(None)
                back = threading.Thread(target=self.copy, args=(other, client), daemon=True)
                back.start()
                self.copy(client, other)
                back.join()

    @staticmethod
    def copy(source, sink):
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                sink.sendall(chunk)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


# The scenarios.


def asked_elsewhere(lab, directory, ports, acme=""):
    """Two nodes: what A orders is asked of B, which has looked at the store once, while somebody else held the lease, and looks
    again when it is told to."""
    lab.take_lease("cdn.test")
    b = lab.node("b", directory, ports=ports, poll="1h", lease="1h", acme=acme).start().wait()
    a = lab.node("a", directory, acme=acme)
    wait_until("b to be ready", lambda: "200 OK" in b.get("/.well-known/portico/ready"))
    lab.drop_lease("cdn.test")
    return a, b


def ordered_by(lab, a, b):
    code, text = a.command("renew", "cdn.test")
    assert code == 0 and "issued" in text, text
    b.process.send_signal(signal.SIGHUP)
    leaf = served([b])
    assert subject(leaf)[0] == ["cdn.test"], subject(leaf)
    assert lab.log(b.name).count("was issued and published") == 0, "b ordered by itself"
    assert lab.orders() == 1, lab.orders()


def validation_reaches_another_node(lab):
    """The order is placed by node A, and the CA's validation reaches node B, which ordered nothing."""
    ports = free_ports(3)
    a, b = asked_elsewhere(lab, lab.pebble(http_port=ports[1]), ports)
    ordered_by(lab, a, b)
    code, text = a.command("list")
    assert code == 0 and "valid until" in text, text
    code, text = a.command("export", "cdn.test", "--out", str(lab.dir))
    assert code == 0, text
    assert (lab.dir / "cdn.test.ecdsa.key").stat().st_mode & 0o777 == 0o600
    # The same questions as the CA's: at the DNS, and at each address that it names.
    check = ["check", "--http-port", str(b.http), "--dns", f"127.0.0.1:{lab.dns}"]
    code, text = a.command(*check)
    assert code == 0 and text == "1 certificates, 0 warnings\n", text
    lab.tell_dns("add-a", host="cdn.test", addresses=["127.0.0.1", "127.0.0.2"])
    code, text = a.command(*check)
    assert code == 1 and f"warning: cdn.test: 127.0.0.2 port {b.http} cannot be asked: Connection refused" in text, text
    assert "127.0.0.1 port" not in text, text
    stranger = lab.start("stranger", [sys.executable, "-m", "http.server", "--bind", "127.0.0.2", str(b.http)])
    wait_until("somebody else's server", lambda: listening(b.http, "127.0.0.2"))
    code, text = a.command(*check)
    assert code == 1 and "127.0.0.2" in text and "the name leads elsewhere" in text, text
    stranger.kill()


def five_nodes_one_order(lab):
    """Five nodes start at one moment without a certificate: one order, and all of them serve it."""
    ports = [free_ports(3) for _ in range(5)]
    directory = lab.pebble(http_port=ports[3][1])
    # The CA answers nobody before the node listens that it will ask.
    api = int(directory.split(":")[2].split("/")[0])
    gate = Gate(api)
    nodes = [lab.node(f"n{at}", directory.replace(str(api), str(gate.port)), ports=ports[at], poll="2s") for at in range(5)]
    for node in nodes:
        node.start()
    for node in nodes:
        node.wait()
    began = time.monotonic()
    gate.open.set()
    served(nodes)
    lab.say(f"  all five serve it {time.monotonic() - began:.1f} s after the CA began to answer; they poll every 2 s")
    assert lab.orders() == 1, lab.orders()


def killed_holder(lab):
    """SIGKILL between order and publication: another node finishes, with the order that was left."""
    holder_of, nodes, gate = interrupted(lab, signal.SIGKILL)
    gate.open.set()
    others = [node for node in nodes if node.name != holder_of]
    served(others, "the others to finish")
    assert lab.slot("cdn.test").get("current"), lab.slot("cdn.test")
    lab.say(f"  orders in all: {lab.orders()}")
    assert lab.orders() <= 2, lab.orders()


def stopped_holder(lab):
    """SIGSTOP past the lease: another node finishes, and the one that wakes writes nothing."""
    holder_of, nodes, gate = interrupted(lab, signal.SIGSTOP)
    gate.open.set()
    sleeper = next(node for node in nodes if node.name == holder_of)
    others = [node for node in nodes if node is not sleeper]
    leaf = served(others, "the others to finish")
    wait_until("the lease to be given back", lambda: "lease" not in lab.slot("cdn.test"))
    before = lab.contents()
    sleeper.process.send_signal(signal.SIGCONT)
    wait_until("the sleeper to find out", lambda: "the lease was lost" in lab.log(sleeper.name))
    served([sleeper, *others])
    assert lab.contents() == before, "the sleeper wrote"
    assert sleeper.leaf() == leaf


def interrupted(lab, how):
    """Three nodes; the one that orders gets a signal while the CA validates."""
    ports = [free_ports(3) for _ in range(3)]
    gates = Gate(ports[0][1])
    directory = lab.pebble(http_port=gates.port)
    nodes = [lab.node(f"n{at}", directory, ports=ports[at], poll="1s", lease="6s") for at in range(3)]
    # The node that answers must live: it starts when the CA has asked already, so that it is not the one that orders.
    for node in nodes[1:]:
        node.start().wait()
    assert gates.asked.wait(PATIENCE), "the CA did not ask"
    owner = lab.slot("cdn.test")["lease"]["owner"]
    next(node for node in nodes if node.name == owner).process.send_signal(how)
    nodes[0].start().wait()
    return owner, nodes, gates


def many_bad_nonces(lab):
    """A CA that refuses every third nonce."""
    ports = free_ports(3)
    directory = lab.pebble(http_port=ports[1], nonce_reject=30)
    node = lab.node("n", directory, ports=ports).start().wait()
    served([node])
    for _ in range(3):
        before = node.leaf()
        code, text = node.command("renew")
        assert code == 0, text
        wait_until("the new one to be served", lambda: node.leaf() != before)
    lab.say(f"  {lab.orders()} orders, one for each certificate and what had to be done again")


def tls_alpn(lab):
    """TLS-ALPN-01 of a single node, and a chain of the issuer that was asked for."""
    ports = free_ports(3)
    directory = lab.pebble(tls_port=ports[0], alternates=2)
    issuer = root_name(lab, 1)
    node = lab.node("n", directory, ports=ports, challenge="tls-alpn-01",
                    acme=f'preferred_chain = "{issuer}"\nkeys = ["ecdsa", "rsa"]').start().wait()
    served([node])
    wait_until("both kinds of key", lambda: lab.slot("cdn.test", "rsa").get("current"))
    chains = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{node.https}", "-servername", "cdn.test",
                             "-showcerts"], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    assert f"i:CN = {issuer}" in chains or f"i:CN={issuer}" in chains, chains
    def rsa():
        context = unverified()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
        with contextlib.suppress(OSError), node.connect(context=context) as stream:
            return "RSA" in stream.cipher()[0]
        return False
    wait_until("a client of RSA alone to be served", rsa)


def root_name(lab, at):
    """The common name of one of pebble's roots."""
    import http.client
    from cryptography import x509
    connection = http.client.HTTPSConnection("localhost", lab.management, context=unverified(), timeout=10)
    connection.request("GET", f"/roots/{at}")
    pem = connection.getresponse().read()
    name = x509.load_pem_x509_certificate(pem).subject.get_attributes_for_oid(x509.oid.NameOID.COMMON_NAME)
    return name[0].value


def bound_account(lab):
    """External account binding. The CA asks a node that never saw the account: it looks at the store before it answers."""
    ports = free_ports(3)
    key = base64.urlsafe_b64encode(secrets.token_bytes(48)).decode().rstrip("=")
    directory = lab.pebble(http_port=ports[1], binding={"kid-1": key})
    (lab.dir / "binding.key").write_text(key)
    a, b = asked_elsewhere(lab, directory, ports, 'binding = { id = "kid-1", key_file = "binding.key" }')
    assert not any("accounts/" in key for key, _ in lab.contents()), "there is an account already"
    ordered_by(lab, a, b)


def wildcard_by_rfc2136(lab):
    """DNS-01 for a wildcard, through a dynamic update of knot; a wrong key is refused and says so."""
    port = free_ports(1)[0]
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    (lab.dir / "tsig.key").write_text(key)
    (lab.dir / "zone").write_text("$ORIGIN wild.test.\n$TTL 60\n@ SOA ns.wild.test. admin.wild.test. 1 60 60 600 60\n@ NS ns\nns A 127.0.0.1\n")
    for folder in ("run", "db"):
        (lab.dir / folder).mkdir()
    (lab.dir / "knot.conf").write_text(f"""
server:
    rundir: {lab.dir}/run
    listen: 127.0.0.1@{port}
log:
  - target: stderr
    any: info
database:
    storage: {lab.dir}/db
key:
  - id: acme
    algorithm: hmac-sha256
    secret: {key}
acl:
  - id: update
    key: acme
    action: update
zone:
  - domain: wild.test
    file: {lab.dir}/zone
    acl: update
    zonefile-sync: -1
    journal-content: all
""")
    lab.start("knot", ["knotd", "-c", str(lab.dir / "knot.conf")])
    wait_until("knot", lambda: listening(port))
    directory = lab.pebble(dns=f"127.0.0.1:{port}")
    (lab.dir / "wrong.key").write_text(base64.b64encode(secrets.token_bytes(32)).decode())
    dns = ('dns = {{ provider = "rfc2136", server = "127.0.0.1:%d", zone = "wild.test", key_name = "acme", '
           'secret_file = "{}", wait = "0s" }}' % port)
    names = ("*.wild.test", "wild.test")
    wrong = lab.node("wrong", directory, names=names, challenge="dns-01", acme=dns.format("wrong.key"))
    code, text = wrong.command("renew")
    assert code != 0 and "NotAuth" in text.replace(" ", "") or "not signed" in text, text
    node = lab.node("n", directory, names=names, challenge="dns-01", acme=dns.format("tsig.key"))
    code, text = node.command("renew")
    assert code == 0, text
    node.start().wait()
    leaf = wait_until("the wildcard to be served", lambda: node.leaf("any.wild.test"))
    assert subject(leaf)[0] == sorted(names), subject(leaf)
    added = len(re.findall(r"DDNS", lab.log("knot")))
    assert added >= 2, "knot saw no update"
    left = subprocess.run(["knotc", "-c", str(lab.dir / "knot.conf"), "zone-read", "wild.test", "_acme-challenge.wild.test"],
                          capture_output=True, text=True)
    assert "TXT" not in left.stdout, left.stdout


def wildcard_by_route53(lab):
    """DNS-01 through Route 53, played by moto; the CA's DNS reads what moto holds."""
    port = free_ports(1)[0]
    moto = Path(sys.executable).parent / "moto_server"
    lab.start("moto", [str(moto), "-H", "127.0.0.1", "-p", str(port)])
    wait_until("moto", lambda: listening(port))
    client = boto3.client("route53", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                          aws_access_key_id="test", aws_secret_access_key="test")
    zone = client.create_hosted_zone(Name="wild.test", CallerReference="1")["HostedZone"]["Id"]
    directory = lab.pebble(dns=f"127.0.0.1:{txt_server(client, zone)}")
    (lab.dir / "aws.secret").write_text("test")
    acme = (f'dns = {{ provider = "route53", endpoint = "http://127.0.0.1:{port}", '
            'credentials = { access_key_id = "test", secret_access_key_file = "aws.secret" } }')
    names = ("*.wild.test", "wild.test")
    node = lab.node("n", directory, names=names, challenge="dns-01", acme=acme).start().wait()
    leaf = wait_until("the wildcard to be served", lambda: node.leaf("any.wild.test"))
    assert subject(leaf)[0] == sorted(names), subject(leaf)
    wait_until("the record to be taken away", lambda: not any(
        record["Type"] == "TXT" for record in client.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]))


def txt_server(client, zone):
    """A DNS server, over UDP, that answers TXT with what the hosted zone holds at that moment."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def answer(query):
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        question = query[12:at + 5]
        kind = int.from_bytes(query[at + 1:at + 3], "big")
        texts = []
        if kind == 16:
            for record in client.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]:
                if record["Type"] == "TXT" and record["Name"].rstrip(".") == ".".join(labels):
                    texts += [value["Value"].strip('"').encode() for value in record["ResourceRecords"]]
        head = query[:2] + b"\x85\x80\x00\x01" + len(texts).to_bytes(2, "big") + b"\x00\x00\x00\x00"
        answers = b"".join(b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x00" + (len(text) + 1).to_bytes(2, "big")
                           + bytes([len(text)]) + text for text in texts)
        return head + question + answers

    def run():
        while True:
            query, peer = server.recvfrom(4096)
            with contextlib.suppress(Exception):
                server.sendto(answer(query), peer)
    threading.Thread(target=run, daemon=True).start()
    return server.getsockname()[1]


def swap_under_load(lab):
    """A renewal while clients shake hands without a pause: none of them fails."""
    ports = free_ports(3)
    directory = lab.pebble(http_port=ports[1])
    node = lab.node("n", directory, ports=ports).start().wait()
    before = served([node])
    over, shaken, failed = threading.Event(), [], []

    def load():
        while not over.is_set():
            try:
                with node.connect() as stream:
                    shaken.append(stream.getpeercert(True) == before)
            except OSError as error:
                failed.append(error)
    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        code, text = node.command("renew")
        assert code == 0, text
        wait_until("new connections to see the new one", lambda: node.leaf() != before)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    lab.say(f"  {len(shaken)} handshakes, {len(failed)} failed")
    assert not failed, failed[:3]


def resumed_on_another_node(lab):
    """A thousand clients of OpenSSL, TLS 1.2 and 1.3: a session of node A goes on at node B."""
    ports = free_ports(3)
    directory = lab.pebble(http_port=ports[1])
    a = lab.node("a", directory, ports=ports).start().wait()
    b = lab.node("b", directory).start().wait()
    served([a, b])
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        def resumes(_):
            context = unverified()
            context.minimum_version = context.maximum_version = version
            with a.connect(context=context) as stream:
                stream.sendall(b"GET /.well-known/portico/ready HTTP/1.1\r\nHost: cdn.test\r\nConnection: close\r\n\r\n")
                while stream.recv(4096):
                    pass
                session = stream.session
            with b.connect(context=context, session=session) as stream:
                return stream.session_reused
        with concurrent.futures.ThreadPoolExecutor(4) as clients:
            resumed = sum(clients.map(resumes, range(500)))
        lab.say(f"  {version.name}: {resumed} of 500 resumed on the other node")
        assert resumed == 500, resumed


def by_hand(lab):
    """What an operator does without a CA: list, import, export, and being told what does not fit."""
    def pair(stem, name, days=30):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", str(days), "-keyout", f"{stem}.key", "-out", f"{stem}.pem", "-subj", "/CN=by hand",
                        "-addext", f"subjectAltName=DNS:{name}"], cwd=lab.dir, check=True, capture_output=True)
        return ["--chain", str(lab.dir / f"{stem}.pem"), "--key", str(lab.dir / f"{stem}.key")]
    # Nobody listens there: nothing can be ordered, and everything else works.
    (lab.dir / "ca.pem").write_bytes(b"")
    fits, foreign, other = pair("fits", "cdn.test"), pair("foreign", "other.test"), pair("other", "cdn.test")
    shutil.copy(lab.dir / "fits.pem", lab.dir / "ca.pem")
    node = lab.node("n", f"https://localhost:{free_ports(1)[0]}/dir")

    def told(words, *arguments, good=False):
        code, text = node.command(*arguments)
        assert (code == 0) == good and words in text, (arguments, code, text)
        return text
    told("cdn.test/ecdsa: none yet", "list", good=True)
    told("there is none in the store", "export", "cdn.test")
    told("no such certificate in the configuration", "renew", "else.test")
    told("no such certificate in the configuration", "export", "else.test")
    told("is for other names", "import", "cdn.test", *foreign)
    told("nowhere.pem: cannot be read", "import", "cdn.test", "--chain", "nowhere.pem", "--key", "nowhere.key")
    told("other.key: does not fit the certificate in", "import", "cdn.test", *fits[:2], *other[2:])
    told("imported, valid until", "import", "cdn.test", *fits, good=True)
    [line] = told("not_after", "list", "--json", good=True).splitlines()
    listed = json.loads(line)
    assert listed["certificate"] == "cdn.test/ecdsa" and listed["names"] == ["cdn.test"] and listed["refused"] is None, listed
    out = lab.dir / "out"
    out.mkdir()
    told("cdn.test.ecdsa.key", "export", "cdn.test", "--out", str(out), good=True)
    assert (out / "cdn.test.ecdsa.pem").read_bytes() == (lab.dir / "fits.pem").read_bytes()
    told("File exists", "export", "cdn.test", "--out", str(out))
    # What a CA's DNS would say against it: nobody is there, and others may issue alone.
    lab.challtestsrv()
    dns = ["--http-port", str(node.http), "--dns", f"127.0.0.1:{lab.dns}"]
    told("there is no account in the store yet", "check", *dns)
    public = lab.node("public", "https://acme-v02.api.letsencrypt.org/directory")
    lab.tell_dns("add-caa", host="cdn.test", policies=[{"tag": "issue", "value": "other.example"}])
    code, text = public.command("check", *dns)
    assert code == 1 and "warning: cdn.test: the CAA records of cdn.test do not allow letsencrypt.org" in text, text
    lab.tell_dns("add-caa", host="cdn.test", policies=[{"tag": "issue", "value": "letsencrypt.org"}])
    code, text = public.command("check", *dns)
    assert "CAA" not in text, text
    short, nameless = pair("short", "cdn.test", days=1), lab.node("nameless", node.directory, names=("cdn.other",))
    told("imported, valid until", "import", "cdn.test", *short, good=True)
    told("warning: cdn.test/ecdsa: ends at", "check", *dns)
    told("imported, valid until", "import", "cdn.test", *fits, good=True)
    lab.tell_dns("set-default-ipv4", ip="")
    code, text = nameless.command("check", *dns)
    assert code == 1 and "cdn.other: has no address in the DNS" in text, text
    node.start().wait()
    leaf = wait_until("the import to be served", node.leaf)
    assert subject(leaf)[0] == ["cdn.test"]
    done = subprocess.run([edge_bin(), "certs", "trust"], cwd=lab.dir, capture_output=True, text=True)
    assert done.returncode != 0 and "edge demo makes one" in done.stderr, done
    (lab.dir / ".state/demo/ca").mkdir(parents=True)
    shutil.copy(lab.dir / "fits.pem", lab.dir / ".state/demo/ca/ca.pem")
    done = subprocess.run([edge_bin(), "certs", "trust"], cwd=lab.dir, capture_output=True, text=True)
    assert done.returncode == 0 and "update-ca-certificates" in done.stdout, done


def no_finding_of_sslyze(lab):
    """sslyze, by Mozilla's intermediate profile: no finding, or one that is listed here with its reason."""
    # What sslyze says of a chain is about pebble's roots, which nobody trusts.
    excused = {"certificate": "the CA is a test CA"}
    ports = free_ports(3)
    directory = lab.pebble(http_port=ports[1])
    node = lab.node("n", directory, ports=ports, names=("localhost.test",)).start().wait()
    served([node])
    def sslyze(*arguments):
        result = lab.dir / "sslyze.json"
        # It gives a connection five seconds, which a busy machine may need: what was not looked at is looked at again.
        for _ in range(5):
            result.unlink(missing_ok=True)
            done = subprocess.run([sys.executable, "-m", "sslyze", *arguments, "--slow_connection", "--json_out", str(result),
                                   "--sni", "localhost.test", f"127.0.0.1:{node.https}"],
                                  capture_output=True, text=True, timeout=600)
            scan = (json.loads(result.read_text())["server_scan_results"] if result.exists() else [{}])[0].get("scan_result")
            if scan and all(outcome["status"] in ("COMPLETED", "NOT_SCHEDULED") for outcome in scan.values()):
                return scan, done.stdout
        raise AssertionError(f"sslyze did not come to an end: {done.stdout[-2000:]} {done.stderr[-2000:]}")

    scan, text = sslyze("--mozilla_config", "intermediate")
    more, _ = sslyze("--mozilla_config", "disable", "--early_data")
    found = findings(scan | {"tls_1_3_early_data": more["tls_1_3_early_data"]})
    verdict = text.split("COMPLIANCE AGAINST", 1)[-1]
    for line in re.findall(r"^ +\* (.*)$", verdict, re.MULTILINE):
        if not any(word in line for word in excused):
            found.append(line)
    lab.say("  " + " ".join(verdict.split())[:600])
    assert not found, found


def findings(scan):
    """What of the vulnerabilities that sslyze looks for it found."""
    found = []
    vulnerable = {
        "heartbleed": "is_vulnerable_to_heartbleed",
        "openssl_ccs_injection": "is_vulnerable_to_ccs_injection",
        "tls_compression": "supports_compression",
        "session_renegotiation": "is_vulnerable_to_client_renegotiation_dos",
        "tls_1_3_early_data": "supports_early_data",
    }
    for name, member in vulnerable.items():
        outcome = scan[name]
        assert outcome["status"] == "COMPLETED", (name, outcome)
        if outcome["result"][member]:
            found.append(f"{name}: {member}")
    for version in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
        if scan[f"{version}_cipher_suites"]["result"]["accepted_cipher_suites"]:
            found.append(f"{version} is spoken")
    # Without forward secrecy, and open to what ROBOT was: an exchange of keys by RSA alone.
    assert scan["tls_1_2_cipher_suites"]["result"], scan["tls_1_2_cipher_suites"]
    for suite in scan["tls_1_2_cipher_suites"]["result"]["accepted_cipher_suites"]:
        if not suite["cipher_suite"]["name"].startswith("TLS_ECDHE_"):
            found.append(f"TLS 1.2 takes {suite['cipher_suite']['name']}")
    return found


# Those that take longest come first, so that none of them is left alone at the end.
SCENARIOS = [
    resumed_on_another_node, stopped_holder, killed_holder, swap_under_load, no_finding_of_sslyze, many_bad_nonces,
    wildcard_by_route53, five_nodes_one_order, validation_reaches_another_node, bound_account, tls_alpn, wildcard_by_rfc2136,
    by_hand,
]


def play(scenario):
    """Whether a scenario went well, and what is to be said of it."""
    began, lab, good = time.monotonic(), Lab(), False
    try:
        lab.begin()
        scenario(lab)
        good = True
    except Exception:
        lab.say(traceback.format_exc())
    finally:
        lab.close(not good)
    lab.say(f"  {'ok' if good else 'FAILED'} in {time.monotonic() - began:.1f} s")
    return good, "\n".join([f"{scenario.__name__}: {scenario.__doc__}", *lab.said])


def main(wanted):
    failed = []
    chosen = [scenario for scenario in SCENARIOS if not wanted or scenario.__name__ in wanted]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        played = {pool.submit(play, scenario): scenario for scenario in chosen}
        for done in concurrent.futures.as_completed(played):
            good, said = done.result()
            print(said, flush=True)
            if not good:
                failed.append(played[done].__name__)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
