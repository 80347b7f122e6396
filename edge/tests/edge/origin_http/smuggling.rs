//! Requests that two readers could end at different places: none of them brings a second request to an application, and
//! none leaves a connection on which the next client is answered with something else.

use std::sync::{Arc, Mutex};

use edge::http::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::application::{Act, Application, ok};
use super::over_h2::{connect, head};
use crate::client::{
    DATA, Frame, GOAWAY, HEADERS, RST_STREAM, TestClient, frame, request as h2_request, status,
};
use crate::support::{HOST, TestEdge};

/// An application that says what it was asked, in pages that may be kept.
async fn echo() -> Application {
    Application::start(|seen| {
        let text = format!("{} <{}>", seen.line(), String::from_utf8_lossy(&seen.body));
        vec![Act::Send(ok("cache-control: max-age=60\r\n", &text))]
    })
    .await
}

const SMUGGLED: &str = "GET /evil HTTP/1.1\r\nHost: cdn.test\r\nX: ";

/// Heads whose framing is ambiguous, or would be to somebody else. `{}` is the length of what follows them.
const HEADS: &[(&str, &str)] = &[
    ("CL.TE", "Content-Length: {}\r\nTransfer-Encoding: chunked\r\n"),
    ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
    (
        "TE.CL, no content",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
    ),
    (
        "TE.TE: two lines",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ),
    ("TE.TE: a list", "Transfer-Encoding: chunked, identity\r\n"),
    (
        "TE.TE: nearly",
        "Transfer-Encoding: xchunked\r\nContent-Length: {}\r\n",
    ),
    (
        "a space before the colon",
        "Transfer-Encoding : chunked\r\nContent-Length: {}\r\n",
    ),
    (
        "a space before the colon of the length",
        "Content-Length : {}\r\n",
    ),
    (
        "a tabulator of its own",
        "Transfer-Encoding: \x0bchunked\r\nContent-Length: {}\r\n",
    ),
    (
        "a zero byte",
        "Transfer-Encoding: chunked\0\r\nContent-Length: {}\r\n",
    ),
    (
        "a folded coding",
        "Transfer-Encoding:\r\n chunked\r\nContent-Length: {}\r\n",
    ),
    (
        "a folded field before it",
        "X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: {}\r\n",
    ),
    (
        "a bare CR before it",
        "X: y\rTransfer-Encoding: chunked\r\nContent-Length: {}\r\n",
    ),
    (
        "a bare LF before it",
        "X: y\nTransfer-Encoding: chunked\r\nContent-Length: {}\r\n",
    ),
    (
        "quotes",
        "Transfer-Encoding: \"chunked\"\r\nContent-Length: {}\r\n",
    ),
    (
        "a parameter",
        "Transfer-Encoding: chunked;a=b\r\nContent-Length: {}\r\n",
    ),
    ("two lengths", "Content-Length: 0\r\nContent-Length: {}\r\n"),
    (
        "two equal lengths",
        "Content-Length: {}\r\nContent-Length: {}\r\n",
    ),
    ("a list of lengths", "Content-Length: 0, {}\r\n"),
    ("a signed length", "Content-Length: +{}\r\n"),
    ("a length in parts", "Content-Length: {} 0\r\n"),
    (
        "a length too large for numbers",
        "Content-Length: 18446744073709551617\r\n",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_request_is_refused_whole_and_the_connection_ends() {
    let app = echo().await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    // The page is kept, so that what is smuggled could poison a hit as well.
    edge.get("/", &[]).await;
    for method in ["POST", "GET", "PUT", "DELETE", "BREW"] {
        for (what, fields) in HEADS {
            let content = format!("0\r\n\r\n{SMUGGLED}");
            let fields = fields.replace("{}", &content.len().to_string());
            let mut attacker = edge.client().await;
            attacker
                .send(format!(
                    "{method} / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n{content}"
                ))
                .await;
            let answer = attacker.answer().await;
            assert_eq!(answer.status, 400, "{method} {what}");
            let _ = attacker.try_send("y\r\n\r\n").await;
            assert!(
                attacker.is_closed().await,
                "{method} {what}: something else was answered"
            );
        }
        let innocent = edge.get("/", &[]).await;
        assert_eq!(
            (innocent.status, innocent.text()),
            (200, "GET / HTTP/1.1 <>"),
            "after {method}"
        );
        assert_eq!(
            edge.ask("POST", "/post", &[]).await.text(),
            "POST /post HTTP/1.1 <>"
        );
    }
    let lines: Vec<String> = app.seen().iter().map(|seen| seen.line().to_owned()).collect();
    assert_eq!(lines[0], "GET / HTTP/1.1");
    assert!(
        lines[1..].iter().all(|line| line == "POST /post HTTP/1.1"),
        "{lines:?}"
    );
    edge.stop().await;
}

/// Chunks that some read in another way than RFC 9112, 7.1 has them.
const CHUNKS: &[(&str, &str)] = &[
    ("a bare LF behind an extension", "1;\nx\r\n0\r\n\r\n"),
    ("a bare LF behind a size", "1\nx\r\n0\r\n\r\n"),
    ("a bare LF behind a chunk", "1\r\nx\n0\r\n\r\n"),
    ("a bare CR behind a size", "1\rx\r\n0\r\n\r\n"),
    ("a size with a prefix", "0x1\r\nx\r\n0\r\n\r\n"),
    ("a size with an underscore", "1_0\r\nx\r\n0\r\n\r\n"),
    ("a negative size", "-1\r\nx\r\n0\r\n\r\n"),
    ("a size that overflows", "10000000000000001\r\nx\r\n0\r\n\r\n"),
    ("a size behind a space", " 1\r\nx\r\n0\r\n\r\n"),
    ("no size", "\r\nx\r\n0\r\n\r\n"),
    ("a chunk longer than it says", "1\r\nxyz\r\n0\r\n\r\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_others_read_otherwise_never_reach_an_application() {
    let app = echo().await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    for (what, chunks) in CHUNKS {
        let mut attacker = edge.client().await;
        attacker
            .send(format!(
                "POST /a HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{SMUGGLED}y\r\n\r\n"
            ))
            .await;
        attacker.finish().await;
        let answers = String::from_utf8_lossy(&attacker.rest().await).into_owned();
        assert!(!answers.contains("200 OK"), "{what}: {answers}");
        let innocent = edge.ask("POST", "/innocent", &[]).await;
        assert_eq!(innocent.text(), "POST /innocent HTTP/1.1 <>", "after {what}");
    }
    let lines: Vec<String> = app.seen().iter().map(|seen| seen.line().to_owned()).collect();
    assert!(
        lines.iter().all(|line| line == "POST /innocent HTTP/1.1"),
        "{lines:?}"
    );
    edge.stop().await;
}

/// An application that reads no content: whatever follows a head is the next request to it. It remembers the first lines.
async fn deaf() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("url = \"http://{}\"", listener.local_addr().unwrap());
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    let drain = edge::drain::Drain::default();
    let each = drain.clone();
    drain.spawn("deaf", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            each.spawn("deaf-connection", async move {
                let mut received = Vec::new();
                loop {
                    while let Some(at) = received.windows(4).position(|four| four == b"\r\n\r\n") {
                        let head: Vec<u8> = received.drain(..at + 4).collect();
                        let head = String::from_utf8_lossy(&head).into_owned();
                        let line = head.lines().next().unwrap_or_default().to_owned();
                        let answer = ok("cache-control: max-age=60\r\n", &line);
                        seen.lock().unwrap().push(line);
                        if stream.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                    if !stream.read_buf(&mut received).await.is_ok_and(|count| count > 0) {
                        return;
                    }
                }
            });
        }
    });
    (url, lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_an_application_does_not_read_is_nobodys_request() {
    // CL.0: the application takes the content for the next request on the connection. Whoever comes next must not be
    // given its answer, so nobody comes next.
    for method in ["GET", "DELETE", "OPTIONS", "BREW"] {
        let (url, lines) = deaf().await;
        let edge = TestEdge::start_http(&url, "", "").await;
        for round in 0..5 {
            let mut attacker = edge.client().await;
            attacker
                .send(format!(
                    "{method} /attack HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n{SMUGGLED}",
                    SMUGGLED.len()
                ))
                .await;
            assert_eq!(attacker.answer().await.status, 200, "{method}");
            let path = format!("/innocent{round}");
            let innocent = edge.get(&path, &[]).await;
            let expected = format!("GET {path} HTTP/1.1");
            assert_eq!((innocent.status, innocent.text()), (200, &*expected), "{method}");
            let other = edge.ask("POST", &path, &[]).await;
            assert_eq!(other.text(), format!("POST {path} HTTP/1.1"), "{method}");
        }
        let lines = lines.lock().unwrap().clone();
        assert!(
            !lines.iter().any(|line| line.contains("evil")),
            "{method}: {lines:?}"
        );
        edge.stop().await;
    }
}

/// A good request.
const BASE: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "localhost"),
    (":path", "/"),
];

type Fields = Vec<(&'static str, &'static str)>;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_breaks_a_line_passes_from_http2_to_an_application() {
    let app = echo().await;
    let plus = |name: &'static str, value: &'static str| -> Fields { [BASE, &[(name, value)]].concat() };
    let with = |name: &'static str, value: &'static str| -> Fields {
        let replaced =
            |(own, old): &(&'static str, &'static str)| (*own, if *own == name { value } else { *old });
        BASE.iter().map(replaced).collect()
    };
    let cases: Vec<Fields> = vec![
        plus("x", "a\r\ntransfer-encoding: chunked"),
        plus("x", "a\nevil: b"),
        plus("x", "a\revil: b"),
        plus("x", "a\0b"),
        plus("x", "a\r\n\r\nGET /evil HTTP/1.1\r\nHost: cdn.test\r\n\r\n"),
        plus("x: evil\r\ny", "a"),
        plus("x\nevil", "a"),
        plus("x:", "a"),
        plus("x y", "a"),
        plus("", "a"),
        plus("transfer-encoding", "chunked"),
        plus("connection", "transfer-encoding"),
        plus("host", "evil.test"),
        plus("cookie", "a\r\nevil: b"),
        with(":path", "/ HTTP/1.1\r\nevil: b\r\n\r\n"),
        with(":path", "/a b"),
        with(":path", "/a\nb"),
        with(":path", "/\0"),
        with(":path", ""),
        with(":path", "evil"),
        with(":path", "http://evil.test/"),
        with(":method", "GET /evil HTTP/1.1\r\nx: "),
        with(":method", "GET\n"),
        with(":method", ""),
        with(":authority", "localhost\r\nevil: b"),
        with(":authority", "localhost evil"),
        with(":authority", "localhost/evil"),
        with(":authority", "evil@localhost"),
        with(":scheme", "https://evil.test/?"),
        with(":scheme", "https\r\nevil: b"),
    ];
    let (node, first, dir) = connect(&app, "").await;
    let (_, address) = *node
        .addresses()
        .iter()
        .find(|(kind, _)| *kind == Kind::Https)
        .unwrap();
    for fields in cases {
        let mut client = TestClient::tls(address, &dir.path().join("ca.pem"), &["h2"]).await;
        client.begin_h2(&[]).await;
        client.send(h2_request(1, &fields)).await;
        let ends = |frame: &Frame| [RST_STREAM, HEADERS, GOAWAY].contains(&frame.kind);
        let end = client.frame_until("a refusal", ends).await;
        if end.kind == HEADERS {
            assert_eq!(status(&end.payload), 400, "{fields:?}");
        }
    }
    assert!(app.seen().is_empty(), "{:?}", app.seen());
    let mut client = TestClient::tls(address, &dir.path().join("ca.pem"), &["h2"]).await;
    client.begin_h2(&[]).await;
    client.send(h2_request(1, BASE)).await;
    assert_eq!(client.h2_status(1).await, 200);
    drop((client, first));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_in_http2_is_the_contents_or_the_request_is_none() {
    // H2.CL: what a length leaves over would be the next request on the connection to the application.
    let app = echo().await;
    for (length, content) in [
        ("0", SMUGGLED),
        ("4", "more than four"),
        ("400", "less"),
        ("4, 0", "four"),
        ("+4", "four"),
        ("x", "four"),
    ] {
        let (node, mut client, _dir) = connect(&app, "").await;
        client.send(head(1, "POST", &[("content-length", length)])).await;
        client.send(frame(DATA, 1, 1, content.as_bytes())).await;
        let ends = |frame: &Frame| [RST_STREAM, HEADERS, GOAWAY].contains(&frame.kind);
        let end = client.frame_until("a refusal", ends).await;
        if end.kind == HEADERS {
            let status = status(&end.payload);
            assert!([200, 400, 408].contains(&status), "{length}: {status}");
        }
        drop(client);
        node.stop().await;
    }
    // One that says it has no content may have gone on before the content came; what came then is nowhere.
    for seen in app.seen() {
        let framing = (seen.field("content-length"), seen.field("transfer-encoding"));
        assert_eq!(
            (seen.line(), framing),
            ("POST /upload HTTP/1.1", (Some("0".to_owned()), None)),
            "{}",
            seen.head
        );
    }
}
