//! On the way to the bucket: names, connections, TLS.

use std::sync::Arc;
use std::time::Duration;

use edge::clock::Clock;
use edge::config;
use edge::drain::Drain;
use edge::origin::{Kind, Origins};
use edge::telemetry::metrics::Registry;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::lab::{Edge, Embedded, Place, configuration, once};

fn place(endpoint: String) -> Place {
    Place {
        endpoint,
        bucket: "widgets".to_owned(),
        key_id: "id".to_owned(),
        secret: "secret".to_owned(),
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_has_its_own_error() {
    let edge = Edge::of(&place("http://no-such-name.invalid:9".to_owned()), once());
    let error = edge.get("/w.js").await.unwrap_err();
    assert!(matches!(error.kind, Kind::DnsError | Kind::DnsTimeout), "{error}");
}

#[tokio::test]
async fn a_host_that_takes_no_connection_is_given_up_within_the_deadline() {
    // A listener whose backlog is full answers nothing at all, as a host behind a dropping firewall.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        held.push(stream.unwrap());
        assert!(held.len() < 16, "the backlog has no end");
    }
    let timeouts = config::OriginTimeouts {
        connect: Duration::from_millis(500),
        ..once()
    };
    let edge = Edge::of(&place(format!("http://{address}")), timeouts);
    let began = Instant::now();
    assert_eq!(edge.get("/w.js").await.unwrap_err().kind, Kind::ConnectionTimeout);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    };
    Drain::default().spawn("tls peer", serve);
    let edge = Edge::of(&place(format!("https://localhost:{port}")), once());
    let error = edge.get("/w.js").await.unwrap_err();
    assert_eq!(error.kind, Kind::TlsCertificateError, "{error}");
}

#[tokio::test]
async fn a_peer_without_tls_is_told_from_one_that_is_down() {
    let embedded = Embedded::start().await;
    let edge = Edge::of(&place(embedded.place.endpoint.replace("http:", "https:")), once());
    let error = edge.get("/w.js").await.unwrap_err();
    assert_eq!(error.kind, Kind::TlsProtocolError, "{error}");
}

#[tokio::test]
async fn an_endpoint_that_is_no_url_is_refused_at_start_and_a_reload_counts_on() {
    let good = place("http://127.0.0.1:9".to_owned());
    let with = |endpoint: &str| {
        let bucket = config::Bucket {
            endpoint: Some(endpoint.to_owned()),
            ..good.config()
        };
        configuration(config::S3Origin {
            credentials: good.credentials(),
            buckets: vec![bucket],
            timeouts: once(),
        })
    };
    let (drain, registry) = (Drain::default(), Registry::default());
    let origins = Origins::start(&with("http://127.0.0.1:9"), &drain, &registry, Clock::real()).unwrap();
    for bad in ["127.0.0.1:9", "ftp://host/", "http://", "", "http://a b/"] {
        assert!(origins.reload(&with(bad), &drain).is_err(), "{bad:?}");
    }
    let origins = origins.reload(&with("https://s3.test"), &drain).unwrap();
    assert_eq!(origins.all().len(), 1);
    let text = registry.encode();
    assert_eq!(text.matches("# TYPE edge_origin_retries_total").count(), 1);
    assert_eq!(
        drain.finish(Duration::from_secs(5)).await,
        0,
        "probing ends with the drain"
    );
}
