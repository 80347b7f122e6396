//! Peers that no S3 library would let one build.

use std::time::Duration;

use edge::origin::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::lab::{Edge, Place, hasty, once};

/// Answers every connection with `head`, then with `again` for ever, if there is any.
async fn peer(head: &'static str, again: &'static [u8]) -> Place {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let serve = async move {
        while let Ok((stream, _)) = listener.accept().await {
            // One at a time is enough here.
            let _ = answer(stream, head.as_bytes(), again).await;
        }
    };
    edge::drain::Drain::default().spawn("peer", serve);
    Place {
        endpoint,
        bucket: "widgets".to_owned(),
        key_id: "id".to_owned(),
        secret: "secret".to_owned(),
    }
}

async fn answer(mut stream: TcpStream, head: &[u8], again: &[u8]) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(head).await?;
    while !again.is_empty() {
        stream.write_all(again).await?;
    }
    Ok(())
}

type Nonsense = (&'static str, &'static str, &'static [u8], &'static [Kind]);

const NONSENSE: &[Nonsense] = &[
    (
        "a flood of 1xx",
        "",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        &[Kind::HttpResponseTimeout],
    ),
    (
        "endless fields",
        "HTTP/1.1 200 OK\r\n",
        b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaa\r\n",
        &[Kind::HttpProtocolError],
    ),
    (
        "an endless field",
        "HTTP/1.1 200 OK\r\nX-Filler: ",
        b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        &[Kind::HttpProtocolError],
    ),
    (
        "an endless status line",
        "HTTP/1.1 200 ",
        b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        &[Kind::HttpProtocolError],
    ),
    (
        "an upgrade",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"",
        &[Kind::HttpProtocolError, Kind::ConnectionTerminated],
    ),
    (
        "no content",
        "HTTP/1.1 204 No Content\r\n\r\n",
        b"",
        &[Kind::HttpProtocolError],
    ),
    (
        "HTTP/0.9",
        "hello",
        b"",
        &[Kind::HttpProtocolError, Kind::ConnectionTerminated],
    ),
    (
        "two lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"",
        &[Kind::HttpProtocolError],
    ),
    (
        "a negative length",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"",
        &[Kind::HttpProtocolError],
    ),
    ("a closed connection", "", b"", &[Kind::ConnectionTerminated]),
    (
        "an endless error",
        "HTTP/1.1 500 Oops\r\nContent-Type: application/xml\r\n\r\n<Error><Code>",
        b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        &[Kind::OriginStatus5xx],
    ),
    (
        "an error that is no XML",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\n<<<<>",
        b"",
        &[Kind::Forbidden],
    ),
];

#[tokio::test]
async fn nonsense_is_an_error_in_time() {
    for &(name, head, again, expected) in NONSENSE {
        let timeouts = match expected.contains(&Kind::HttpResponseTimeout) {
            true => hasty(once()),
            false => once(),
        };
        let edge = Edge::of(&peer(head, again).await, timeouts);
        let began = Instant::now();
        let error = edge.get("/w.js").await.map(|answer| answer.status).unwrap_err();
        assert!(expected.contains(&error.kind), "{name}: {error}");
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "{name} took {:?}",
            began.elapsed()
        );
    }
}

#[tokio::test]
async fn a_body_without_a_length_is_whole_only_with_its_last_chunk() {
    const HEAD: &str =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
    let edge = Edge::of(&peer(HEAD, b"").await, once());
    assert_eq!(edge.body("/w.js").await.unwrap(), b"abcdef");

    for broken in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\nde",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\ndef\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let edge = Edge::of(&peer(broken, b"").await, once());
        let mut answer = edge.get("/w.js").await.unwrap();
        let mut last = answer.body.chunk().await;
        while let Some(Ok(_)) = last {
            last = answer.body.chunk().await;
        }
        assert!(matches!(last, Some(Err(_))), "{broken:?} ended cleanly");
        assert!(
            matches!(answer.body.chunk().await, Some(Err(_))),
            "an error is the end"
        );
    }
}

#[tokio::test]
async fn an_etag_alone_is_enough_to_notice_a_wrong_byte_once_etags_are_known_to_be_md5s() {
    const GOOD: &str =
        "HTTP/1.1 200 OK\r\nETag: \"5d41402abc4b2a76b9719d911017c592\"\r\nContent-Length: 5\r\n\r\nhello";
    let edge = Edge::of(&peer(GOOD, b"").await, once());
    assert_eq!(edge.body("/w.js").await.unwrap(), b"hello");
    // A store whose ETags are something else is believed.
    const ODD: &str =
        "HTTP/1.1 200 OK\r\nETag: \"5d41402abc4b2a76b9719d911017c592\"\r\nContent-Length: 5\r\n\r\nhellp";
    let edge = Edge::of(&peer(ODD, b"").await, once());
    assert_eq!(edge.body("/w.js").await.unwrap(), b"hellp");
}

#[tokio::test]
async fn obs_text_in_a_field_breaks_nothing() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nLast-Modified: yesterday\r\nExpires: soon\r\nContent-Disposition: attachment; filename=\"\u{e9}\"\r\n\r\nok";
    let edge = Edge::of(&peer(HEAD, b"").await, once());
    let answer = edge.get("/w.js").await.unwrap();
    assert_eq!(answer.headers["last-modified"], "yesterday");
    assert_eq!(
        answer.headers["content-disposition"].as_bytes(),
        "attachment; filename=\"\u{e9}\"".as_bytes()
    );
}
