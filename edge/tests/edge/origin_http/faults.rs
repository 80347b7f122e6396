//! What an application may do wrong, and that it stays between it and us.

use std::sync::Arc;

use tokio::sync::Notify;

use super::application::{Act, Application, ok};
use crate::client::soon;
use crate::support::{TestEdge, request};

/// What a server may say that is no answer.
const NONSENSE: &[(&str, &str)] = &[
    ("nothing at all", ""),
    ("no HTTP", "hello\r\n\r\n"),
    ("half a head", "HTTP/1.1 200 OK\r\ncontent-le"),
    (
        "two lengths",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    ),
    (
        "the same length twice",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nab",
    ),
    (
        "a negative length",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    ),
    (
        "a length and chunks",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    ),
    (
        "a coding of the transfer",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    ),
    (
        "a folded field",
        "HTTP/1.1 200 OK\r\nx-a: b\r\n c\r\ncontent-length: 2\r\n\r\nab",
    ),
    (
        "a space before the colon",
        "HTTP/1.1 200 OK\r\nx-a : b\r\ncontent-length: 2\r\n\r\nab",
    ),
    (
        "a zero byte in a field",
        "HTTP/1.1 200 OK\r\nx-a: b\0c\r\ncontent-length: 2\r\n\r\nab",
    ),
    (
        "a switch of protocols",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ),
    (
        "a status that is none",
        "HTTP/1.1 600 What\r\ncontent-length: 2\r\n\r\nab",
    ),
    (
        "a part that nobody asked for",
        "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-1/9\r\ncontent-length: 2\r\n\r\nab",
    ),
    (
        "a confirmation of nothing",
        "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_is_a_502_that_nobody_keeps_and_is_not_asked_for_twice() {
    for (what, bytes) in NONSENSE {
        let app = Application::start(|_| vec![Act::Send(bytes.as_bytes().to_vec()), Act::Close]).await;
        let edge = TestEdge::start_http(&app.url(), "", "").await;
        let answer = edge.get("/", &[]).await;
        assert_eq!(
            (answer.status, answer.field("cache-control")),
            (502, Some("no-store")),
            "{what}"
        );
        assert_eq!(app.connections(), 1, "{what}");
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_a_head_is_no_answer() {
    let many: String = (0..300).map(|n| format!("x-{n}: a\r\n")).collect();
    let long = format!("x-long: {}\r\n", "a".repeat(70 * 1024));
    for (what, fields) in [("fields", many), ("bytes", long)] {
        let app = Application::saying(ok(&fields, "hello")).await;
        let edge = TestEdge::start_http(&app.url(), "", "").await;
        assert_eq!(edge.get("/", &[]).await.status, 502, "{what}");
        edge.stop().await;
    }
    // What is large and yet within the limits goes on.
    let large = format!("x-large: {}\r\n", "a".repeat(8 * 1024));
    let app = Application::saying(ok(&large, "hello")).await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    assert_eq!(
        edge.get("/", &[]).await.field("x-large").map(str::len),
        Some(8 * 1024)
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_never_ends_cleanly() {
    const LARGE: usize = 3 << 20;
    let large = "a".repeat(LARGE - 1);
    let chunk = format!("{LARGE:x}\r\n{large}");
    let bodies = [
        format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\ncache-control: max-age=60\r\n\r\n{large}"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncache-control: max-age=60\r\n\r\n{chunk}"),
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncache-control: max-age=60\r\n\r\n{chunk}a\r\nzz\r\n"
        ),
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncache-control: max-age=60\r\n\r\n{chunk}a\r\n"
        ),
    ];
    for bytes in bodies {
        let start = bytes[..60].to_owned();
        let app = Application::start(move |_| vec![Act::Send(bytes.clone().into_bytes()), Act::Close]).await;
        let edge = TestEdge::start_http(&app.url(), "", "").await;
        for _ in 0..2 {
            let mut client = edge.client().await;
            client.send(request("GET", "/", &[])).await;
            let answer = client.try_answer(false).await;
            assert!(answer.is_none_or(|answer| answer.status == 502), "{start:?}");
        }
        assert!(app.seen().len() >= 2, "nothing of it was kept: {start:?}");
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_begin_or_does_not_go_on_is_given_up() {
    let never = Arc::new(Notify::new());
    let waits = Arc::clone(&never);
    let app = Application::start(move |seen| {
        let mut acts = vec![Act::Wait(Arc::clone(&waits))];
        if seen.line().contains("/half") {
            acts.insert(
                0,
                Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec()),
            );
        }
        acts
    })
    .await;
    let timeouts = "[origin.app.timeouts]\nattempt = \"1s\"\noperation = \"4s\"\nread = \"1s\"\n";
    let edge = TestEdge::start_http(&app.url(), "", timeouts).await;
    assert_eq!(edge.get("/never", &[]).await.status, 504);
    edge.stop().await;
    let timeouts = "[origin.app.timeouts]\nattempt = \"30s\"\noperation = \"60s\"\nread = \"1s\"\n";
    let edge = TestEdge::start_http(&app.url(), "", timeouts).await;
    let mut client = edge.client().await;
    client.send(request("GET", "/half", &[])).await;
    assert!(soon("the end", client.try_answer(false)).await.is_none());
    app.until_seen(2).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_interim_answers_ends_and_a_few_are_passed_over() {
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    for (count, status) in [(3, 200), (5000, 502)] {
        let flood = hint.repeat(count) + &String::from_utf8(ok("", "hello")).unwrap();
        let app = Application::saying(flood).await;
        let edge = TestEdge::start_http(&app.url(), "", "").await;
        assert_eq!(edge.get("/", &[]).await.status, status, "{count}");
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_an_answer_is_not_taken_for_the_next_one() {
    // Response splitting: a second answer behind the first, on the same connection.
    let app = Application::start(|seen| {
        let text = match seen.line().contains("/evil") {
            true => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfineHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
            false => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood",
        };
        vec![Act::Send(text.into())]
    })
    .await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    for _ in 0..3 {
        assert_eq!(edge.get("/evil", &[]).await.text(), "fine");
        assert_eq!(edge.get("/good", &[]).await.text(), "good");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_closes_without_an_answer_is_served_stale_where_that_is_allowed() {
    let app = Application::start(|seen| match seen.number {
        0 => vec![Act::Send(ok(
            "cache-control: max-age=1, stale-if-error=600\r\n",
            "old",
        ))],
        _ => vec![Act::Close],
    })
    .await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    assert_eq!(edge.get("/", &[]).await.text(), "old");
    edge.clock.advance(std::time::Duration::from_secs(10));
    let stale = edge.get("/", &[]).await;
    assert_eq!((stale.status, stale.text()), (200, "old"));
    assert_eq!(edge.get("/cold", &[]).await.status, 502);
    edge.stop().await;
}
