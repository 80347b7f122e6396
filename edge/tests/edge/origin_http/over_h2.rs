//! Content over HTTP/2.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use edge::clock::Clock;
use edge::http::Kind;
use edge::server::Node;

use super::application::{Act, Application, ok};
use crate::client::{DATA, HEADERS, RST_STREAM, TestClient, WINDOW_UPDATE, block, frame};

/// A node with TLS in front of `app`, and a client that speaks HTTP/2 to it.
pub(super) async fn connect(app: &Application, tables: &str) -> (Node, TestClient, TempDir) {
    let dir = TempDir::new().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &authority).unwrap();
    let file = |name: &str| dir.path().join(name);
    std::fs::write(file("ca.pem"), authority.pem()).unwrap();
    std::fs::write(file("leaf.pem"), leaf.pem()).unwrap();
    std::fs::write(file("leaf.key"), key.serialize_pem()).unwrap();
    let text = format!(
        "workers = 1\n[listen]\nhttps = [\"127.0.0.1:0\"]\nadmin = \"off\"\n[drain]\ndelay = \"0s\"\n\
         [[tls.certificate]]\nchain = \"leaf.pem\"\nkey = \"leaf.key\"\n\
         [origin.app]\nkind = \"http\"\n{}\n[[site]]\nhosts = [\"localhost\"]\norigin = \"app\"\n{tables}\n",
        app.url()
    );
    let config = edge::config::parse(&text, "test.toml", dir.path()).unwrap();
    let node = Node::start(config, None, Clock::real(), tokio::runtime::Handle::current()).unwrap();
    let (_, address) = node
        .addresses()
        .iter()
        .find(|(kind, _)| *kind == Kind::Https)
        .unwrap();
    let mut client = TestClient::tls(*address, &file("ca.pem"), &["h2"]).await;
    client.begin_h2(&[]).await;
    (node, client, dir)
}

pub(super) fn head(stream: u32, method: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let all = [
        &[
            (":method", method),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", "/upload"),
        ],
        fields,
    ]
    .concat();
    frame(HEADERS, 4, stream, &block(&all))
}

/// Sends `bytes` of content on a stream as fast as the windows allow.
async fn upload(client: &mut TestClient, stream: u32, bytes: usize) {
    const WINDOW: usize = 65_535;
    let (mut of_stream, mut of_connection, mut left) = (WINDOW, WINDOW, bytes);
    while left > 0 {
        let size = left.min(16_384).min(of_stream).min(of_connection);
        if size == 0 {
            let update = client
                .frame_until("room to send", |frame| frame.kind == WINDOW_UPDATE)
                .await;
            let more = u32::from_be_bytes(update.payload[..4].try_into().unwrap()) as usize;
            match update.stream {
                0 => of_connection += more,
                _ => of_stream += more,
            }
            continue;
        }
        left -= size;
        of_stream -= size;
        of_connection -= size;
        let end = u8::from(left == 0);
        client.send(frame(DATA, end, stream, &vec![b'a'; size])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_over_http2_reaches_the_application_whole_and_is_no_flood() {
    let app = Application::start(|seen| vec![Act::Send(ok("", &seen.body.len().to_string()))]).await;
    let size = 3 << 20;
    for fields in [&[("content-length", "3145728")][..], &[][..]] {
        let (node, mut client, _dir) = connect(&app, "").await;
        client.send(head(1, "PUT", fields)).await;
        upload(&mut client, 1, size).await;
        assert_eq!(client.h2_status(1).await, 200);
        let data = client.frame_until("data", |frame| frame.kind == DATA).await;
        assert_eq!(data.payload, size.to_string().as_bytes());
        node.stop().await;
    }
    let seen = app.seen();
    assert_eq!(seen[0].field("content-length").as_deref(), Some("3145728"));
    assert_eq!(seen[1].field("transfer-encoding").as_deref(), Some("chunked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn content_over_http2_that_breaks_off_never_reaches_the_application_as_whole() {
    let app = Application::start(|seen| vec![Act::Send(ok("", &seen.body.len().to_string()))]).await;
    let (node, mut client, _dir) = connect(&app, "[limits]\ncontent_bytes = 10\n").await;
    client.send(head(1, "PUT", &[])).await;
    client.send(frame(DATA, 0, 1, b"half")).await;
    client.send(frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])).await;
    client.send(head(3, "PUT", &[])).await;
    client.send(frame(DATA, 1, 3, b"more than ten")).await;
    assert_eq!(client.h2_status(3).await, 413);
    client.send(head(5, "PUT", &[])).await;
    client.send(frame(DATA, 1, 5, b"ten at mos")).await;
    assert_eq!(client.h2_status(5).await, 200);
    let seen = app.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].body, b"ten at mos");
    node.stop().await;
}
