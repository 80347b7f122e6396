//! Handshakes between this node and rustls as a client, in memory.

mod hellos;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CipherSuite, ClientConfig, NamedGroup, ProtocolVersion, RootCertStore};
use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::*;
use crate::clock::Clock;
use crate::config::CertificateFiles;

type Versions = &'static [&'static rustls::SupportedProtocolVersion];
static TLS12: Versions = &[&rustls::version::TLS12];
static TLS13: Versions = &[&rustls::version::TLS13];

const DEADLINE: Duration = Duration::from_secs(20);

/// A certificate that is not on disk yet, with its key.
pub(crate) struct Made {
    chain: String,
    key: String,
}

pub(crate) fn certificate(names: &[&str]) -> Made {
    certificate_from(
        names,
        Clock::real().now().to_system_time(),
        Duration::from_secs(90 * 86_400),
    )
}

pub(crate) fn certificate_from(names: &[&str], from: SystemTime, life: Duration) -> Made {
    make(names, from, life, &PKCS_ECDSA_P256_SHA256)
}

fn rsa_certificate(names: &[&str]) -> Made {
    let now = Clock::real().now().to_system_time();
    make(names, now, Duration::from_secs(86_400), &PKCS_RSA_SHA256)
}

fn make(
    names: &[&str],
    from: SystemTime,
    life: Duration,
    algorithm: &'static rcgen::SignatureAlgorithm,
) -> Made {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + from.duration_since(UNIX_EPOCH).unwrap();
    params.not_after = params.not_before + life;
    let key = KeyPair::generate_for(algorithm).unwrap();
    Made {
        chain: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

pub(crate) fn write(folder: &Path, name: &str, made: &Made) -> CertificateFiles {
    let files = CertificateFiles {
        chain: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
        default: false,
    };
    fs::write(&files.chain, &made.chain).unwrap();
    fs::write(&files.key, &made.key).unwrap();
    files
}

/// A node with certificates, and clients that trust them.
struct Lab {
    acceptor: Acceptor,
    registry: Registry,
    roots: RootCertStore,
}

impl Lab {
    fn new(certificates: &[(Made, bool)]) -> Self {
        let registry = Registry::default();
        let resolver = Arc::new(Resolver::default());
        let mut lab = Self {
            acceptor: Acceptor::new(resolver, &registry).unwrap(),
            registry,
            roots: RootCertStore::empty(),
        };
        lab.serve(certificates);
        lab
    }

    /// Swaps the certificates that are served; clients trust the old ones as well.
    fn serve(&mut self, certificates: &[(Made, bool)]) {
        let folder = tempfile::tempdir().unwrap();
        let now = Clock::real().now().to_system_time();
        let bundles = certificates.iter().map(|(made, default)| {
            let files = write(folder.path(), "a", made);
            let bundle = certs::load(&files.chain, &files.key, now).unwrap();
            (Arc::new(bundle), *default)
        });
        self.acceptor.resolver.replace(bundles);
        for (made, _) in certificates {
            let der = CertificateDer::from_pem_slice(made.chain.as_bytes()).unwrap();
            self.roots.add(der).unwrap();
        }
    }

    fn client(&self) -> Client {
        Client {
            roots: self.roots.clone(),
            provider: aws_lc_rs::default_provider(),
            versions: rustls::ALL_VERSIONS,
            alpn: &["h2", "http/1.1"],
            sni: true,
        }
    }

    async fn meet(&self, config: &Arc<ClientConfig>, name: &'static str) -> Meeting {
        let (ours, theirs) = duplex(64 * 1024);
        let connect =
            TlsConnector::from(Arc::clone(config)).connect(ServerName::try_from(name).unwrap(), theirs);
        let (node, client) = tokio::join!(self.acceptor.accept(ours, DEADLINE), connect);
        Meeting { node, client }
    }

    fn refused(&self, reason: Reason) -> u64 {
        self.acceptor.metrics.refusals.value(reason)
    }
}

/// How a client is set up.
struct Client {
    roots: RootCertStore,
    provider: CryptoProvider,
    versions: Versions,
    alpn: &'static [&'static str],
    sni: bool,
}

impl Client {
    fn config(self) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(self.provider))
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(self.roots)
            .with_no_client_auth();
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.enable_sni = self.sni;
        Arc::new(config)
    }
}

/// What both sides made of a handshake.
struct Meeting {
    node: Result<Accepted<DuplexStream>, Refusal>,
    client: io::Result<ClientStream<DuplexStream>>,
}

impl Meeting {
    #[track_caller]
    fn open(self) -> (Accepted<DuplexStream>, ClientStream<DuplexStream>) {
        (self.node.unwrap(), self.client.unwrap())
    }

    #[track_caller]
    fn check_refused(self, reason: Reason, alert: AlertDescription) {
        let refusal = self.node.unwrap_err();
        assert_eq!(refusal.reason(), reason, "{refusal:?}");
        let error = self.client.unwrap_err();
        let expected = rustls::Error::AlertReceived(alert);
        assert_eq!(tls_error(&error), Some(&expected), "{error:?}");
    }
}

async fn say(
    from: &mut (impl AsyncWrite + Unpin + ?Sized),
    to: &mut (impl AsyncRead + Unpin + ?Sized),
    text: &[u8],
) {
    from.write_all(text).await.unwrap();
    from.flush().await.unwrap();
    let mut heard = vec![0; text.len()];
    to.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, text);
}

fn shown(client: &ClientStream<DuplexStream>) -> CertificateDer<'static> {
    let chain = client.get_ref().1.peer_certificates().unwrap();
    chain.first().unwrap().clone().into_owned()
}

#[tokio::test]
async fn the_name_decides_which_certificate_is_shown() {
    let lab = Lab::new(&[
        (certificate(&["a.example"]), false),
        (certificate(&["*.b.example"]), false),
    ]);
    let config = lab.client().config();
    let (node, client) = lab.meet(&config, "a.example").await.open();
    assert_eq!(node.server_name.as_deref(), Some("a.example"));
    let exact = shown(&client);
    let (_, client) = lab.meet(&config, "x.b.example").await.open();
    assert_ne!(shown(&client), exact);
    let (node, _) = lab.meet(&config, "A.Example").await.open();
    assert_eq!(node.server_name.as_deref(), Some("a.example"));
}

#[tokio::test]
async fn an_unknown_name_is_told_so_and_sees_no_certificate_of_others() {
    let lab = Lab::new(&[
        (certificate(&["a.example"]), true),
        (certificate(&["*.b.example"]), false),
    ]);
    let config = lab.client().config();
    for name in ["b.example", "x.y.b.example", "other.invalid"] {
        let meeting = lab.meet(&config, name).await;
        meeting.check_refused(Reason::UnknownName, AlertDescription::UnrecognisedName);
    }
    assert_eq!(lab.refused(Reason::UnknownName), 3);
    assert!(
        lab.registry
            .encode()
            .contains("edge_tls_handshake_failures_total{reason=\"unknown-name\"} 3")
    );
}

#[tokio::test]
async fn a_client_without_a_name_gets_the_default_or_is_refused() {
    let mut lab = Lab::new(&[(certificate(&["a.example"]), false)]);
    let nameless = |lab: &Lab| {
        Client {
            sni: false,
            ..lab.client()
        }
        .config()
    };
    let meeting = lab.meet(&nameless(&lab), "a.example").await;
    meeting.check_refused(Reason::NoServerName, AlertDescription::UnrecognisedName);
    lab.serve(&[(certificate(&["a.example"]), true)]);
    let (node, _) = lab.meet(&nameless(&lab), "a.example").await.open();
    assert_eq!(node.server_name, None);
}

#[tokio::test]
async fn both_versions_are_spoken_and_the_key_exchange_is_hybrid() {
    let lab = Lab::new(&[(certificate(&["a.example"]), false)]);
    let (_, client) = lab.meet(&lab.client().config(), "a.example").await.open();
    let connection = client.get_ref().1;
    assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = connection.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);

    let old = Client {
        versions: TLS12,
        ..lab.client()
    };
    let (mut node, mut client) = lab.meet(&old.config(), "a.example").await.open();
    assert_eq!(
        client.get_ref().1.protocol_version(),
        Some(ProtocolVersion::TLSv1_2)
    );
    say(&mut client, &mut node.stream, b"ping").await;
}

#[tokio::test]
async fn alpn_alone_chooses_the_version_of_http() {
    let lab = Lab::new(&[(certificate(&["a.example"]), false)]);
    for (alpn, expected) in [
        (&["h2", "http/1.1"] as &[_], Protocol::H2),
        (&["http/1.1", "h2"], Protocol::H2),
        (&["http/1.1"], Protocol::H1),
        (&["foo", "http/1.1"], Protocol::H1),
        (&[], Protocol::H1),
    ] {
        let config = Client { alpn, ..lab.client() }.config();
        let (node, _) = lab.meet(&config, "a.example").await.open();
        assert_eq!(node.protocol, expected, "{alpn:?}");
    }
    let foreign = Client {
        alpn: &["foo"],
        ..lab.client()
    };
    let meeting = lab.meet(&foreign.config(), "a.example").await;
    meeting.check_refused(Reason::NoProtocol, AlertDescription::NoApplicationProtocol);
}

#[tokio::test]
async fn ecdsa_and_rsa_stand_side_by_side() {
    let both = [
        (rsa_certificate(&["a.example"]), false),
        (certificate(&["a.example"]), false),
    ];
    let mut lab = Lab::new(&both);
    let only = |lab: &Lab, suite: CipherSuite| {
        let mut client = lab.client();
        client
            .provider
            .cipher_suites
            .retain(|known| known.suite() == suite);
        client.versions = TLS12;
        client.config()
    };
    let rsa = CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
    let ecdsa = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    let (_, with_rsa) = lab.meet(&only(&lab, rsa), "a.example").await.open();
    let (_, with_ecdsa) = lab.meet(&only(&lab, ecdsa), "a.example").await.open();
    let (_, with_any) = lab.meet(&lab.client().config(), "a.example").await.open();
    assert_ne!(shown(&with_rsa), shown(&with_ecdsa));
    assert_eq!(
        shown(&with_any),
        shown(&with_ecdsa),
        "what is cheaper to sign with comes first"
    );

    lab.serve(&[(certificate(&["a.example"]), false)]);
    let meeting = lab.meet(&only(&lab, rsa), "a.example").await;
    meeting.check_refused(Reason::NoCompatibleKey, AlertDescription::HandshakeFailure);
}

#[tokio::test]
async fn a_client_comes_back_with_its_ticket_even_after_a_swap() {
    let mut lab = Lab::new(&[(certificate(&["a.example"]), false)]);
    for (versions, early) in [(TLS13, false), (TLS12, false), (TLS13, true), (TLS12, true)] {
        if early && lab.acceptor.early.is_none() {
            lab.acceptor = lab.acceptor.clone().with_early_data().unwrap();
        }
        let config = Client {
            versions,
            ..lab.client()
        }
        .config();
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (mut node, mut client) = lab.meet(&config, "a.example").await.open();
            assert_eq!(
                client.get_ref().1.handshake_kind(),
                Some(expected),
                "{versions:?}, early: {early}"
            );
            // TLS 1.3 sends tickets after the handshake; a client sees them when it reads.
            say(&mut node.stream, &mut client, b"hello").await;
        }
        lab.serve(&[(certificate(&["a.example"]), false)]);
        let (_, client) = lab.meet(&config, "a.example").await.open();
        assert_eq!(client.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        lab.serve(&[(certificate(&["b.example"]), false)]);
        let meeting = lab.meet(&config, "a.example").await;
        meeting.check_refused(Reason::UnknownName, AlertDescription::UnrecognisedName);
        lab.serve(&[(certificate(&["a.example"]), false)]);
    }
}

/// What waits for the client, as it crosses the wire, nothing at its end; `None` when nothing has come.
async fn waiting(client: &mut ClientStream<DuplexStream>) -> Option<Vec<u8>> {
    let mut found = vec![0; 64 * 1024];
    let read = client.get_mut().0.read(&mut found);
    let count = tokio::time::timeout(Duration::from_millis(20), read).await.ok()?;
    found.truncate(count.unwrap());
    Some(found)
}

#[tokio::test]
async fn reading_sends_nothing_and_tickets_leave_with_the_first_answer() {
    let lab = Lab::new(&[(certificate(&["a.example"]), false)]);
    let config = Client {
        versions: TLS13,
        ..lab.client()
    }
    .config();
    for answer in [b"" as &[u8], b"answer"] {
        let (mut node, mut client) = lab.meet(&config, "a.example").await.open();
        // As HTTP/2 puts its frames aside.
        node.stream.session_mut().writer().write_all(answer).unwrap();
        let mut byte = [0];
        let read = node.stream.read(&mut byte);
        assert!(
            tokio::time::timeout(Duration::from_millis(20), read)
                .await
                .is_err()
        );
        assert_eq!(waiting(&mut client).await, None);
        node.stream.flush().await.unwrap();
        let sent = waiting(&mut client).await.unwrap();
        assert!(sent.len() > 200, "two tickets: {sent:?}");
        // A record has a head of five bytes, with its length, and costs 17 (RFC 8446 sections 5.1 and 5.2).
        let record = sent.len() - answer.len() - 22;
        assert_eq!(
            answer.is_empty(),
            !sent[record..].starts_with(&[23, 3, 3, 0, 23]),
            "{sent:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_has_closed_gets_what_was_put_aside_and_hears_the_end() {
    let lab = Lab::new(&[(certificate(&["a.example"]), false)]);
    for versions in [TLS13, TLS12] {
        let config = Client {
            versions,
            ..lab.client()
        }
        .config();
        let (mut node, mut client) = lab.meet(&config, "a.example").await.open();
        client.shutdown().await.unwrap();
        assert_eq!(node.stream.read(&mut [0]).await.unwrap(), 0);
        node.stream.session_mut().writer().write_all(b"late").unwrap();
        node.stream.shutdown().await.unwrap();
        let mut heard = Vec::new();
        // Without our close_notify this would be an error.
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"late", "{versions:?}");
    }
}

#[tokio::test]
async fn a_ticket_of_one_name_opens_nothing_under_another() {
    let names = ["a.example", "b.example"].map(|name| (certificate(&[name]), false));
    let mut lab = Lab::new(&names);
    for (versions, early) in [(TLS13, false), (TLS12, false), (TLS13, true), (TLS12, true)] {
        if early && lab.acceptor.early.is_none() {
            lab.acceptor = lab.acceptor.clone().with_early_data().unwrap();
        }
        let client = Client {
            versions,
            ..lab.client()
        };
        let mut config = (*client.config()).clone();
        config.resumption = Resumption::store(Arc::new(Nameless(ClientSessionMemoryCache::new(8))));
        let config = Arc::new(config);
        // That the last is resumed shows that the client offers what it has, whatever the name.
        for (name, expected) in [
            ("a.example", HandshakeKind::Full),
            ("b.example", HandshakeKind::Full),
            ("b.example", HandshakeKind::Resumed),
        ] {
            let (mut node, mut client) = lab.meet(&config, name).await.open();
            let kind = client.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(expected), "{name} {versions:?}, early: {early}");
            say(&mut node.stream, &mut client, b"hello").await;
        }
    }
}

/// Sessions of a client that keeps no names apart.
#[derive(Debug)]
struct Nameless(ClientSessionMemoryCache);

impl Nameless {
    fn any() -> ServerName<'static> {
        ServerName::try_from("any.example").unwrap()
    }
}

impl ClientSessionStore for Nameless {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(Self::any(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&Self::any())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(Self::any(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::any())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::any());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Self::any(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::any())
    }
}

#[tokio::test]
async fn a_swap_leaves_open_connections_alone() {
    let mut lab = Lab::new(&[(certificate(&["a.example"]), false)]);
    let (mut node, mut client) = lab.meet(&lab.client().config(), "a.example").await.open();
    let before = shown(&client);
    lab.serve(&[(certificate(&["a.example"]), false)]);
    say(&mut client, &mut node.stream, b"still here").await;
    say(&mut node.stream, &mut client, b"so am I").await;
    let (_, client) = lab.meet(&lab.client().config(), "a.example").await.open();
    assert_ne!(shown(&client), before);
}

#[tokio::test]
async fn a_silent_client_is_left_at_the_deadline() {
    let lab = Lab::new(&[(certificate(&["a.example"]), false)]);
    let (ours, mut theirs) = duplex(1024);
    let deadline = Duration::from_millis(20);
    let refusal = lab.acceptor.accept(ours, deadline).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::Deadline);
    assert_eq!(
        theirs.read(&mut [0; 16]).await.unwrap(),
        0,
        "the connection is closed"
    );
    assert_eq!(lab.refused(Reason::Deadline), 1);
}

#[tokio::test]
async fn a_client_that_stops_halfway_is_left_at_the_deadline_too() {
    let lab = Lab::new(&[(certificate(&["a.example"]), false)]);
    let (ours, mut theirs) = duplex(64 * 1024);
    let name = ServerName::try_from("a.example").unwrap();
    let mut hello = Vec::new();
    rustls::ClientConnection::new(lab.client().config(), name)
        .unwrap()
        .write_tls(&mut hello)
        .unwrap();
    theirs.write_all(&hello).await.unwrap();
    let deadline = Duration::from_millis(200);
    let refusal = lab.acceptor.accept(ours, deadline).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::Deadline);
}

#[tokio::test]
async fn what_is_no_tls_and_who_goes_away_are_told_apart() {
    let lab = Lab::new(&[(certificate(&["a.example"]), false)]);
    for (sent, expected) in [
        (
            b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n" as &[u8],
            Reason::NotTls,
        ),
        (b"\x16\x03\x01\x02\x00\x01", Reason::Closed),
        (b"", Reason::Closed),
    ] {
        let (ours, mut theirs) = duplex(1024);
        theirs.write_all(sent).await.unwrap();
        theirs.shutdown().await.unwrap();
        let refusal = lab.acceptor.accept(ours, DEADLINE).await.unwrap_err();
        assert_eq!(refusal.reason(), expected, "{refusal:?}");
    }
}

#[test]
fn reasons_and_their_tokens_stand_in_one_order() {
    for (reason, token) in [
        (Reason::Closed, "closed"),
        (Reason::Deadline, "deadline"),
        (Reason::NoCompatibleKey, "no-compatible-key"),
        (Reason::NoProtocol, "no-protocol"),
        (Reason::NoServerName, "no-server-name"),
        (Reason::NotTls, "not-tls"),
        (Reason::Proof, "proof"),
        (Reason::Tls, "tls"),
        (Reason::UnknownName, "unknown-name"),
    ] {
        assert_eq!(reason.token(), token);
    }
}

/// The development authority vouches for local names in the eyes of a client that trusts it, and its constraints hold.
#[tokio::test]
async fn a_client_that_trusts_the_development_authority_accepts_its_leaf() {
    let folder = tempfile::tempdir().unwrap();
    let now = Clock::real().now().to_system_time();
    let ca = certs::DevCa::open_or_create(folder.path(), now).unwrap();
    let addresses = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let pair = ca.issue(&["localhost".to_owned()], &addresses, now).unwrap();
    let bundle = certs::load(&pair.chain, &pair.key, now).unwrap();
    let mut lab = Lab::new(&[]);
    lab.acceptor.resolver.replace([(Arc::new(bundle), pair.default)]);
    let root = CertificateDer::from_pem_file(ca.certificate()).unwrap();
    lab.roots.add(root).unwrap();
    let config = lab.client().config();
    for name in ["localhost", "127.0.0.1", "::1"] {
        lab.meet(&config, name).await.open();
    }
}
