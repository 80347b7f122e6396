//! Requests that come before the handshake is over: what is answered, what is asked to come again, and what a copy gets.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use edge::config::CertificateFiles;
use edge::http::Kind;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tempfile::TempDir;

use crate::client::soon;
use crate::support::{HOST, TestBucket, TestEdge, request};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const HEADERS: u8 = 1;
const GOAWAY: u8 = 7;

/// Nodes with one certificate, and clients that trust it.
struct Lab {
    bucket: TestBucket,
    files: CertificateFiles,
    roots: RootCertStore,
    _folder: TempDir,
}

impl Lab {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![HOST.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2120, 1, 1);
        let chain = params.self_signed(&key).unwrap();
        let files = CertificateFiles {
            chain: folder.path().join("a.pem"),
            key: folder.path().join("a.key"),
            default: false,
        };
        std::fs::write(&files.chain, chain.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(chain.der().clone()).unwrap();
        let bucket = TestBucket::start().await;
        bucket.put("a.js", "let a;", "max-age=60").await;
        bucket.put("b.js", "let b;", "max-age=60").await;
        Self {
            bucket,
            files,
            roots,
            _folder: folder,
        }
    }

    /// A node that has `/a.js` in its cache, and `/b.js` not.
    async fn node(&self, early_data: bool) -> Served {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let files = self.files.clone();
        let edge = TestEdge::start_with(&self.bucket, "", "", |config| {
            config.listen.https = vec![any];
            config.certificates = vec![files];
            config.early_data = early_data;
        })
        .await;
        assert_eq!(edge.get("/a.js", &[]).await.status, 200);
        let addresses = edge.node.addresses();
        let https = addresses.iter().find(|(kind, _)| *kind == Kind::Https).unwrap().1;
        Served { edge, https }
    }

    fn client(&self, alpn: &str) -> Client {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        config.enable_early_data = true;
        Client(Arc::new(config))
    }
}

struct Served {
    edge: TestEdge,
    https: SocketAddr,
}

impl Served {
    /// What the node says of itself: connections whose early data was taken, and handshakes that were not finished.
    fn counts(&self) -> (u64, u64) {
        let unfinished = "edge_tls_handshake_failures_total{reason=\"closed\"}";
        (
            self.edge.metric("edge_tls_early_data_total"),
            self.edge.metric(unfinished),
        )
    }
}

/// A client with a memory for sessions. It waits on the thread that it is called on.
struct Client(Arc<ClientConfig>);

impl Client {
    /// Asks once, and so gets sessions to come back with.
    fn meet(&self, node: &Served) {
        let mut call = self.call(node, b"");
        if self.0.alpn_protocols[0] == b"h2" {
            call.finish(&[PREFACE, SETTINGS].concat());
            call.frame();
            return;
        }
        call.finish(&get("/a.js"));
        assert_eq!(call.answer(), (200, "let a;".to_owned()));
    }

    /// Sends a hello, and `early` with it if the session allows that.
    fn call(&self, node: &Served, early: &[u8]) -> Call {
        let name = ServerName::try_from(HOST).unwrap();
        let mut connection = ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        let offered = connection.early_data().is_some();
        if let Some(mut data) = connection.early_data() {
            data.write_all(early).unwrap();
        }
        let mut flight = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut flight).unwrap();
        }
        let mut socket = TcpStream::connect(node.https).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket.write_all(&flight).unwrap();
        Call {
            connection,
            socket,
            flight,
            offered,
            heard: Vec::new(),
        }
    }
}

/// A connection that says no more than it is told to: it does not finish its handshake by itself.
struct Call {
    connection: ClientConnection,
    socket: TcpStream,
    /// What it began with.
    flight: Vec<u8>,
    /// Whether the session allowed early data.
    offered: bool,
    heard: Vec<u8>,
}

impl Call {
    /// Waits for more of what the node says.
    fn hear(&mut self) {
        let count = self.connection.read_tls(&mut self.socket).unwrap();
        assert!(count > 0, "the node went away");
        let state = self.connection.process_new_packets().unwrap();
        let mut fresh = vec![0; state.plaintext_bytes_to_read()];
        self.connection.reader().read_exact(&mut fresh).unwrap();
        self.heard.extend(fresh);
    }

    /// Finishes the handshake, and says something more.
    fn finish(&mut self, more: &[u8]) {
        while self.connection.is_handshaking() {
            self.hear();
        }
        self.connection.writer().write_all(more).unwrap();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.socket).unwrap();
        }
    }

    /// The status and the body of the next response of HTTP/1.1.
    fn answer(&mut self) -> (u16, String) {
        let head = loop {
            if let Some(end) = self.heard.windows(4).position(|four| four == b"\r\n\r\n") {
                break String::from_utf8(self.heard.drain(..end + 4).collect()).unwrap();
            }
            self.hear();
        };
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        while self.heard.len() < length {
            self.hear();
        }
        let body = self.heard.drain(..length).collect();
        (status, String::from_utf8(body).unwrap())
    }

    /// The kind and the content of the next frame of HTTP/2.
    fn frame(&mut self) -> (u8, Vec<u8>) {
        while self.heard.len() < 9 {
            self.hear();
        }
        let length = usize::from(self.heard[1]) << 8 | usize::from(self.heard[2]);
        while self.heard.len() < 9 + length {
            self.hear();
        }
        let frame: Vec<u8> = self.heard.drain(..9 + length).collect();
        (frame[3], frame[9..].to_vec())
    }

    /// Says the same again over a connection of its own, as somebody would who has only seen the bytes, and hangs up.
    fn replay(&self, node: &Served) {
        let mut socket = TcpStream::connect(node.https).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket.write_all(&self.flight).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        // A reset is an end as well.
        let _ = socket.read_to_end(&mut heard);
        assert!(!heard.is_empty());
    }
}

/// A HEADERS frame on stream 1 that ends it: GET of `path`, each name from the static table (RFC 7541 appendix A).
fn headers(path: &str) -> Vec<u8> {
    let literal = |index: u8, text: &str| {
        let length = u8::try_from(text.len()).unwrap();
        [&[index, length], text.as_bytes()].concat()
    };
    let block = [&[0x82, 0x87], &literal(0x04, path)[..], &literal(0x01, HOST)].concat();
    let length = u8::try_from(block.len()).unwrap();
    [&[0, 0, length, HEADERS, 0x05, 0, 0, 0, 1], &block[..]].concat()
}

fn get(path: &str) -> Vec<u8> {
    request("GET", path, &[]).into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_get_of_what_is_cached_is_answered_before_the_handshake_is_over() {
    let lab = Lab::new().await;
    let node = lab.node(true).await;
    let client = lab.client("http/1.1");
    client.meet(&node);
    let mut call = client.call(&node, &get("/a.js"));
    assert!(call.offered);
    assert_eq!(call.answer(), (200, "let a;".to_owned()));
    assert!(call.connection.is_early_data_accepted());
    assert_eq!(node.counts(), (1, 0));
    // The connection goes on like any other.
    call.finish(&get("/b.js"));
    assert_eq!(call.answer(), (200, "let b;".to_owned()));
    call.finish(&get("/a.js?x=1"));
    assert_eq!(call.answer().0, 200);
    assert_eq!(lab.bucket.asked("a.js").len(), 1);
    node.edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_else_is_asked_to_come_again_and_does_nothing_until_then() {
    let lab = Lab::new().await;
    let node = lab.node(true).await;
    let client = lab.client("http/1.1");
    for (early, later) in [
        (request("GET", "/b.js", &[]), 200),
        (request("GET", "/a.js?x=1", &[]), 200),
        (request("GET", "/c.js", &[("cache-control", "no-cache")]), 404),
        (request("POST", "/a.js", &[("content-length", "0")]), 405),
        (request("DELETE", "/a.js", &[]), 405),
        (request("PURGE", "/a.js", &[]), 405),
    ] {
        client.meet(&node);
        let before = lab.bucket.log().len();
        let mut call = client.call(&node, early.as_bytes());
        assert_eq!(call.answer().0, 425, "{early}");
        assert!(call.connection.is_early_data_accepted());
        assert_eq!(lab.bucket.log().len(), before, "{early}");
        call.finish(early.as_bytes());
        assert_eq!(call.answer().0, later, "{early}");
        assert!(lab.bucket.log().len() <= before + 1);
    }
    node.edge.stop().await;
}

/// RFC 8446 section 8.1: a session is used once, by the node that made it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_what_a_client_has_sent_is_not_answered_by_any_node() {
    let lab = Lab::new().await;
    let (node, other) = (lab.node(true).await, lab.node(true).await);
    let client = lab.client("http/1.1");
    client.meet(&node);
    let mut call = client.call(&node, &get("/a.js"));
    assert_eq!(call.answer().0, 200);
    for (replays, place) in [(1, &node), (2, &node), (1, &other)] {
        call.replay(place);
        let taken = u64::from(std::ptr::eq(place, &node));
        let counts = async {
            while place.counts().1 < replays {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("the copy to be given up", counts).await;
        assert_eq!(place.counts(), (taken, replays));
    }
    // A copy that comes first wins the answer of a plain GET, which anybody may have; the client itself loses nothing by it.
    client.meet(&node);
    let stolen = client.call(&other, &get("/a.js"));
    stolen.replay(&node);
    let mut call = client.call(&node, &get("/a.js"));
    assert_eq!(call.answer().0, 200);
    node.edge.stop().await;
    other.edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_begins_anew_and_answers_what_is_sent_again() {
    let lab = Lab::new().await;
    let (node, other) = (lab.node(true).await, lab.node(true).await);
    let client = lab.client("http/1.1");
    client.meet(&node);
    let mut call = client.call(&other, &get("/a.js"));
    assert!(call.offered);
    call.finish(&get("/a.js"));
    assert!(!call.connection.is_early_data_accepted());
    assert_eq!(call.answer().0, 200);
    assert_eq!(other.counts(), (0, 0));
    node.edge.stop().await;
    other.edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_has_early_requests_too() {
    let lab = Lab::new().await;
    let node = lab.node(true).await;
    // 200 from the static table, and 425 in Huffman's code.
    for (path, expected) in [("/a.js", &[0x88][..]), ("/b.js", &[0x83, 0x68, 0x4d, 0xff])] {
        let client = lab.client("h2");
        client.meet(&node);
        let mut call = client.call(&node, &[PREFACE, SETTINGS, &headers(path)].concat());
        assert!(call.offered);
        let block = loop {
            match call.frame() {
                (HEADERS, block) => break block,
                (GOAWAY, reason) => panic!("{path}: {reason:x?}"),
                _ => {}
            }
        };
        assert!(call.connection.is_early_data_accepted());
        let found = block.windows(expected.len()).any(|bytes| bytes == expected);
        assert!(found, "{path}: {block:x?}");
    }
    assert_eq!(lab.bucket.asked("b.js").len(), 0);
    node.edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_comes_early_unless_it_is_allowed_to() {
    let lab = Lab::new().await;
    let node = lab.node(false).await;
    let client = lab.client("http/1.1");
    client.meet(&node);
    let mut call = client.call(&node, &get("/a.js"));
    assert!(!call.offered);
    call.finish(&get("/a.js"));
    assert_eq!(call.answer().0, 200);
    assert_eq!(node.counts(), (0, 0));
    node.edge.stop().await;
}

/// RFC 8470 section 5.1: a node before this one says that it took a request early.
#[tokio::test]
async fn what_came_early_at_a_node_before_this_one_is_early_here_too() {
    let lab = Lab::new().await;
    let node = lab.node(false).await;
    let early = [("early-data", "1")];
    for (method, path, expected) in [
        ("GET", "/a.js", 200),
        ("GET", "/b.js", 425),
        ("GET", "/a.js?x=1", 425),
        ("POST", "/a.js", 425),
    ] {
        let answer = node.edge.ask(method, path, &early).await;
        assert_eq!(answer.status, expected, "{method} {path}");
        if expected == 425 {
            assert_eq!(answer.field("cache-control"), Some("no-store"));
        }
    }
    assert_eq!(lab.bucket.asked("b.js").len(), 0);
    assert_eq!(node.edge.get("/b.js", &[]).await.status, 200);
    node.edge.stop().await;
}
