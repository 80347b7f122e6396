//! Several servers, their health, and TLS to them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::application::{Act, Application, answer, ok};
use crate::support::{HOST, TestEdge, request};

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_answers_while_the_first_does_not() {
    let app = Application::start(|seen| vec![Act::Send(ok("", &String::from_utf8_lossy(&seen.body)))]).await;
    let urls = format!(
        "urls = [\"http://{}\", \"http://{}/base\"]",
        nobody().await,
        app.address
    );
    let edge = TestEdge::start_http(&urls, "", "").await;
    assert_eq!(edge.get("/a", &[]).await.status, 200);
    let mut client = edge.client().await;
    client
        .send("POST /b HTTP/1.1\r\nhost: cdn.test\r\ncontent-length: 4\r\n\r\nwhat")
        .await;
    assert_eq!(
        client.answer().await.text(),
        "what",
        "content waits until somebody takes it"
    );
    let seen = app.seen();
    assert_eq!(seen[1].line(), "POST /base/b HTTP/1.1");
    assert_eq!(
        seen[1].field("host"),
        Some(app.address.to_string()),
        "each server is told its own name"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_it_cannot_answer_is_passed_over_while_there_is_another() {
    let busy = Application::saying(answer("503 Busy", "", "busy")).await;
    let free = Application::saying(ok("", "free")).await;
    let both = |first: &Application, second: &Application| {
        format!(
            "urls = [\"http://{}\", \"http://{}\"]",
            first.address, second.address
        )
    };
    let edge = TestEdge::start_http(&both(&busy, &free), "", "").await;
    assert_eq!(edge.get("/", &[]).await.text(), "free");
    edge.stop().await;
    let edge = TestEdge::start_http(&both(&busy, &busy_too().await), "", "").await;
    let last = edge.get("/", &[]).await;
    assert_eq!(
        (last.status, last.text()),
        (503, "busy too"),
        "the last one's word goes on"
    );
    edge.stop().await;
}

async fn busy_too() -> Application {
    Application::saying(answer("503 Busy", "", "busy too")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listening_is_a_502_and_then_nobody_is_asked_any_more() {
    let url = format!("url = \"http://{}\"", nobody().await);
    let edge = TestEdge::start_http(&url, "", "").await;
    for n in 0..3 {
        assert_eq!(edge.get(&format!("/{n}"), &[]).await.status, 502);
    }
    assert_eq!(
        edge.ask("POST", "/", &[]).await.status,
        503,
        "its breaker is open"
    );
    assert_eq!(edge.get("/again", &[]).await.status, 503);
    assert_eq!(edge.metric("edge_origin_breaker_open"), 1);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_well_is_left_out_before_a_client_meets_it() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let app = Application::start(move |seen| {
        let fails = seen.line().contains("/healthz") && !is_well.load(Ordering::SeqCst);
        let status = if fails { "500 Ill" } else { "200 OK" };
        vec![Act::Send(answer(status, "", "hello"))]
    })
    .await;
    let edge = TestEdge::start_http(&format!("{}\nhealth = \"/healthz?deep\"", app.url()), "", "").await;
    let seen = app.until_seen(1).await;
    assert_eq!(seen[0].line(), "GET /healthz?deep HTTP/1.1");
    assert_eq!(seen[0].field("host"), Some(app.address.to_string()));
    edge.until("the look to be counted", || {
        edge.metric("edge_origin_errors_total{error=\"origin_status_5xx\"}") >= 1
    })
    .await;
    well.store(true, Ordering::SeqCst);
    assert_eq!(edge.get("/", &[]).await.status, 200, "one bad look is not enough");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_breaks_again_and_again_takes_no_other_page_away() {
    // Each way in which a server may fail on one page, and be well on all others.
    let app = Application::start(|seen| {
        let bytes: &[u8] = match seen.line().split(' ').nth(1).unwrap() {
            "/closes" => b"",
            "/garbage" => b"what\r\n\r\n",
            "/half" => b"HTTP/1.1 200 OK\r\ncontent-le",
            "/cut" => b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
            "/304" => b"HTTP/1.1 304 Not Modified\r\n\r\n",
            "/500" => b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
            _ => b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell",
        };
        // It closes each time, as a server does whose connections are not kept alive.
        vec![Act::Send(bytes.to_vec()), Act::Close]
    })
    .await;
    for path in ["/closes", "/garbage", "/half", "/cut", "/304", "/500", "/fine"] {
        let edge = TestEdge::start_http(&app.url(), "query = \"keep\"", "").await;
        for n in 0..30 {
            let mut client = edge.client().await;
            // Queries make keys of their own, and are one page all the same.
            client.send(request("GET", &format!("{path}?{n}"), &[])).await;
            let _ = client.try_answer(false).await;
        }
        let other = edge.get("/other", &[]).await;
        assert_eq!((other.status, other.text()), (200, "well"), "after {path}");
        assert_eq!(edge.metric("edge_origin_breaker_open"), 0, "after {path}");
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_break_off_their_uploads_speak_against_no_server() {
    let app = Application::saying(answer("200 OK", "", "well")).await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    for n in 0..10 {
        let mut client = edge.client().await;
        client
            .send(format!(
                "PUT /{n} HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz"
            ))
            .await;
        client.finish().await;
        let _ = client.try_answer(false).await;
    }
    assert_eq!(edge.ask("POST", "/", &[]).await.text(), "well");
    assert_eq!(edge.metric("edge_origin_breaker_open"), 0);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_on_every_page_is_left_alone() {
    let app = Application::start(|_| vec![Act::Close]).await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    for n in 0..5 {
        assert_eq!(edge.get(&format!("/{n}"), &[]).await.status, 502);
    }
    assert_eq!(edge.get("/again", &[]).await.status, 503, "its breaker is open");
    edge.stop().await;
}

/// An authority in a file, and a server for `localhost` that it vouches for.
struct Secure {
    dir: TempDir,
    port: u16,
}

impl Secure {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        edge::drain::Drain::default().spawn("secure application", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n")
                    && stream.read_buf(&mut request).await.is_ok_and(|count| count > 0)
                {}
                let text: &[u8] = match request.starts_with(b"GET /cut") {
                    true => b"HTTP/1.1 200 OK\r\n\r\nhalf",
                    false => b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsecret",
                };
                let _ = stream.write_all(text).await;
                let _ = stream.flush().await;
                if request.starts_with(b"GET /cut") {
                    // Without a word: whoever reads cannot know that this was all.
                    drop(stream.into_inner().0);
                } else {
                    let _ = stream.shutdown().await;
                }
            }
        });
        Self { dir, port }
    }

    fn lines(&self, host: &str, ca: Option<PathBuf>) -> String {
        let ca = ca.map_or(String::new(), |ca| format!("\nca = \"{}\"", ca.display()));
        format!("url = \"https://{host}:{}\"{ca}", self.port)
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified_by_the_authorities_of_the_file_and_by_the_name_of_the_url() {
    let app = Secure::start().await;
    let edge = TestEdge::start_http(&app.lines("localhost", Some(app.ca())), "", "").await;
    assert_eq!(edge.get("/", &[]).await.text(), "secret");
    edge.stop().await;
    let other = Secure::start().await;
    for (why, lines) in [
        ("another name", app.lines("127.0.0.1", Some(app.ca()))),
        ("another authority", app.lines("localhost", Some(other.ca()))),
    ] {
        let edge = TestEdge::start_http(&lines, "", "").await;
        assert_eq!(edge.get("/", &[]).await.status, 502, "{why}");
        assert_eq!(
            edge.metric("edge_origin_errors_total{error=\"tls_certificate_error\"}"),
            1,
            "{why}"
        );
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_up_to_the_end_of_a_connection_that_tls_did_not_end_is_not_whole() {
    let app = Secure::start().await;
    let edge = TestEdge::start_http(&app.lines("localhost", Some(app.ca())), "", "").await;
    let mut client = edge.client().await;
    client.send(request("GET", "/cut", &[])).await;
    let answer = client.try_answer(false).await;
    assert!(answer.is_none_or(|answer| answer.status == 502));
    edge.stop().await;
}

#[test]
fn a_file_that_vouches_for_nobody_is_refused_at_start() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("empty.pem"), "").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _runtime = runtime.enter();
    for (file, expected) in [
        ("empty.pem", "holds no certificate"),
        ("none.pem", "cannot be used"),
    ] {
        let text = format!(
            "[listen]\nplain = [\"127.0.0.1:0\"]\n[origin.app]\nkind = \"http\"\nurl = \"https://a\"\nca = \"{file}\"\n\
             [[site]]\nhosts = [\"a\"]\norigin = \"app\"\n"
        );
        let config = edge::config::parse(&text, "test.toml", Path::new(dir.path())).unwrap();
        let origins = edge::origin::Origins::start(
            &config,
            &edge::drain::Drain::default(),
            &edge::telemetry::metrics::Registry::default(),
            edge::clock::Clock::real(),
        );
        let error = origins.unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(file), "{error}");
    }
}
