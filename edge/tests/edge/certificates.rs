//! Certificates that nodes share: what a CA is answered, swaps under load, sessions that another node resumes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use certs::settings::{
    Acme, Challenge, KeyKind, Managed, ORDER_PATIENCE, Secret, Settings, StorePlace, StoreSettings,
};
use edge::http::Kind;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{TestClient, soon};
use crate::support::{HOST, TestBucket, TestEdge, all};

/// Nodes that share a folder.
struct Fleet {
    bucket: TestBucket,
    store: TempDir,
    roots: RootCertStore,
}

impl Fleet {
    async fn new() -> Self {
        Self {
            bucket: TestBucket::start().await,
            store: TempDir::new().unwrap(),
            roots: RootCertStore::empty(),
        }
    }

    fn settings(&self, owner: &str) -> Settings {
        Settings {
            store: StoreSettings {
                place: StorePlace::Folder(self.store.path().join("shared")),
                keys: Secret(hex::encode([7; 32])),
                state: self.store.path().join(owner),
                owner: owner.to_owned(),
                poll: Duration::from_millis(20),
                lease: Duration::from_secs(60),
            },
            managed: vec![Managed {
                names: vec![HOST.to_owned()],
                default: false,
                keys: vec![KeyKind::Ecdsa],
                acme: Acme {
                    // Nobody listens there: every order fails, and what is served comes from imports.
                    directory: "http://127.0.0.1:9/directory".to_owned(),
                    contact: Vec::new(),
                    challenge: Challenge::Http01,
                    profile: None,
                    preferred_chain: None,
                    patience: ORDER_PATIENCE,
                    binding: None,
                    roots: None,
                },
            }],
        }
    }

    async fn node(&self, owner: &str) -> Served {
        let settings = self.settings(owner);
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let edge = TestEdge::start_with(&self.bucket, "", "", |config| {
            config.listen.https = vec![any];
            config.listen.http = vec![any];
            config.managed = Some(settings);
        })
        .await;
        let of = |kind| {
            edge.node
                .addresses()
                .iter()
                .find(|(own, _)| *own == kind)
                .unwrap()
                .1
        };
        Served {
            https: of(Kind::Https),
            http: of(Kind::Redirect),
            edge,
        }
    }

    /// Puts a new certificate into the store; clients trust it.
    async fn publish(&mut self) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![HOST.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2120, 1, 1);
        let chain = params.self_signed(&key).unwrap();
        self.roots.add(chain.der().clone()).unwrap();
        let clock = edge::clock::Clock::real();
        let keeper = certs::Keeper::open(
            self.settings("operator"),
            Arc::new(move || clock.now().to_system_time()),
            Box::new(|| {}),
        );
        // A node that tries to order holds the lease for a moment.
        let keeper = keeper.unwrap();
        let imported = async {
            while keeper
                .import(HOST, chain.pem(), key.serialize_pem())
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("the certificate to be imported", imported).await;
        chain.der().clone()
    }

    fn client(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        Arc::new(config)
    }
}

struct Served {
    edge: TestEdge,
    https: SocketAddr,
    http: SocketAddr,
}

impl Served {
    async fn connect(&self, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.https).await?;
        let name = ServerName::try_from(HOST).unwrap();
        TlsConnector::from(Arc::clone(config)).connect(name, stream).await
    }

    /// Waits until new connections see this certificate.
    async fn until_serves(&self, config: &Arc<ClientConfig>, wanted: &CertificateDer<'_>) {
        let poll = async {
            loop {
                if let Ok(stream) = self.connect(config).await
                    && stream.get_ref().1.peer_certificates().and_then(<[_]>::first) == Some(wanted)
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon("the node to serve the certificate", poll).await;
    }
}

/// One request over a connection, so that its tickets arrive.
async fn ask(stream: &mut TlsStream<TcpStream>) {
    let request =
        format!("GET /.well-known/portico/ready HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn a_ca_is_answered_on_the_port_that_redirects_and_only_for_an_exact_token() {
    let fleet = Fleet::new().await;
    let node = fleet.node("node").await;
    let get = async |path: &str| {
        let mut client = TestClient::plain(node.http).await;
        client
            .send(format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n"))
            .await;
        client.answer().await
    };
    let known = async {
        while get("/.well-known/acme-challenge/token").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the account to be known", known).await;
    let answer = get("/.well-known/acme-challenge/token_-09").await;
    let text = String::from_utf8(answer.body.clone()).unwrap();
    let (token, thumbprint) = text.split_once('.').unwrap();
    assert_eq!((token, thumbprint.len()), ("token_-09", 43));
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
    for path in [
        "/.well-known/acme-challenge/",
        "/.well-known/acme-challenge/a/b",
        "/.well-known/acme-challenge/%3Cb%3E",
    ] {
        assert_eq!(get(path).await.status, 404, "{path}");
    }
    for path in [
        "/.well-known/acme-challenge/../../x",
        "/.well-known/acme-challenge/%2e%2e/x",
    ] {
        let answer = get(path).await;
        assert!(
            matches!(answer.status, 308 | 400 | 404),
            "{path}: {}",
            answer.status
        );
        assert!(
            !String::from_utf8_lossy(&answer.body).contains(thumbprint),
            "{path}"
        );
    }
    assert_eq!(get("/other").await.status, 308, "everything else goes to https");
    node.edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_under_load_fails_no_handshake_and_new_connections_see_the_new_certificate() {
    let mut fleet = Fleet::new().await;
    let first = fleet.publish().await;
    let node = fleet.node("node").await;
    node.until_serves(&fleet.client(), &first).await;
    let mut open = node.connect(&fleet.client()).await.unwrap();

    let second = fleet.publish().await;
    let config = fleet.client();
    let (over, shaken, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let load = async || {
        // Each handshake is a full one: a client of its own has no ticket.
        while !over.load(Ordering::SeqCst) {
            match node.connect(&fleet.client()).await {
                Ok(_) => shaken.fetch_add(1, Ordering::SeqCst),
                Err(_) => failed.fetch_add(1, Ordering::SeqCst),
            };
        }
    };
    let swap = async {
        node.until_serves(&config, &second).await;
        over.store(true, Ordering::SeqCst);
    };
    tokio::join!(all((0..8).map(|_| load()).collect()), swap);
    assert_eq!(failed.load(Ordering::SeqCst), 0);
    assert!(shaken.load(Ordering::SeqCst) > 0);
    ask(&mut open).await;
    node.edge.stop().await;
}

/// A thousand clients meet one node, then the other: each goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_one_node_are_resumed_by_the_other() {
    const CLIENTS: usize = 1_000;
    let mut fleet = Fleet::new().await;
    let certificate = fleet.publish().await;
    let (one, other) = (fleet.node("one").await, fleet.node("other").await);
    for node in [&one, &other] {
        node.until_serves(&fleet.client(), &certificate).await;
    }
    let mut resumed = 0;
    for _ in 0..CLIENTS / 8 {
        let clients = (0..8).map(|_| async {
            let config = fleet.client();
            let mut stream = one.connect(&config).await.unwrap();
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
            ask(&mut stream).await;
            let mut stream = other.connect(&config).await.unwrap();
            // Its answer shows that the node, too, has the handshake behind it.
            ask(&mut stream).await;
            stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
        });
        resumed += all(clients.collect())
            .await
            .into_iter()
            .filter(|resumed| *resumed)
            .count();
    }
    assert_eq!(resumed, CLIENTS, "of {CLIENTS}");
    assert_eq!(
        other.edge.metric("edge_tls_handshakes_resumed_total"),
        CLIENTS as u64
    );
    one.edge.stop().await;
    other.edge.stop().await;
}

#[tokio::test]
async fn a_node_starts_from_its_own_copy_and_shows_how_its_certificates_are() {
    let mut fleet = Fleet::new().await;
    let certificate = fleet.publish().await;
    let node = fleet.node("node").await;
    node.until_serves(&fleet.client(), &certificate).await;
    let line = format!("edge_managed_certificate_expiry_timestamp_seconds{{certificate=\"{HOST}/ecdsa\"}}");
    assert!(node.edge.metric(&line) > 0);
    assert_eq!(node.edge.node.registry().problems(), Vec::<String>::new());
    node.edge.stop().await;
    std::fs::remove_dir_all(fleet.store.path().join("shared")).unwrap();
    let again = fleet.node("node").await;
    again.until_serves(&fleet.client(), &certificate).await;
    again.edge.stop().await;
}

/// A node without the certificate that others have is not sent traffic; when nobody has one there is nobody better.
#[tokio::test]
async fn a_node_that_lacks_what_others_have_is_not_ready() {
    let mut fleet = Fleet::new().await;
    let fresh = fleet.node("fresh").await;
    fresh
        .edge
        .until("nobody has one", || fresh.edge.node.readiness().is_ready())
        .await;
    let certificate = fleet.publish().await;
    let settings = |keys: [u8; 32]| {
        let mut settings = fleet.settings("keyless");
        settings.store.keys = Secret(hex::encode(keys));
        settings
    };
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let keyless = TestEdge::start_with(&fleet.bucket, "", "", |config| {
        config.listen.https = vec![any];
        config.managed = Some(settings([9; 32]));
    })
    .await;
    assert!(!keyless.node.readiness().is_ready());
    fresh.until_serves(&fleet.client(), &certificate).await;
    fresh
        .edge
        .until("it has one", || fresh.edge.node.readiness().is_ready())
        .await;
    assert!(!keyless.node.readiness().is_ready());
    keyless.stop().await;
    fresh.edge.stop().await;
}

/// Whatever a client's first message is changed into, the node answers or closes, and goes on.
#[tokio::test]
async fn no_mangled_hello_harms_the_node() {
    let mut fleet = Fleet::new().await;
    let certificate = fleet.publish().await;
    let node = fleet.node("node").await;
    let config = fleet.client();
    node.until_serves(&config, &certificate).await;
    let mut hello = Vec::new();
    let name = ServerName::try_from(HOST).unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::clone(&config), name).unwrap();
    connection.write_tls(&mut hello).unwrap();
    let head = hello.len().min(400);
    let mangled = (0..head).step_by(3).map(|at| {
        let mut changed = hello.clone();
        changed[at] ^= 0xff;
        if at % 2 == 0 {
            changed.truncate(at + 1);
        }
        changed
    });
    for hello in mangled {
        let mut stream = TcpStream::connect(node.https).await.unwrap();
        let _ = stream.write_all(&hello).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = soon("the node to answer or to close", read).await;
    }
    node.connect(&config).await.unwrap();
    node.edge.stop().await;
}
