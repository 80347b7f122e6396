//! Answers that could be read in two ways: none of them becomes the answer to another request, nothing that a server
//! was made to say becomes a field of ours, and what is kept is whole.

use super::application::{Act, Application, ok};
use crate::client::Answer;
use crate::support::{TestEdge, request};

/// Bytes that follow an answer which is shorter than its server believes.
const EVIL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncache-control: max-age=60\r\n\r\nevil";

/// What a server may say, and what a client may get of it: one of these, or nothing whole.
const CASES: &[(&str, &str, &[u16])] = &[
    (
        "a length and chunks",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[502],
    ),
    (
        "chunks and a length",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        &[502],
    ),
    (
        "two lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 0\r\n\r\nfine",
        &[502],
    ),
    (
        "a list of lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 4, 0\r\n\r\nfine",
        &[502],
    ),
    (
        "a list of one length",
        "HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\n\r\nfine",
        &[502],
    ),
    (
        "a signed length",
        "HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nfine",
        &[502],
    ),
    (
        "a length in hexadecimal",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x4\r\n\r\nfine",
        &[502],
    ),
    (
        "a length too large for numbers",
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551620\r\n\r\nfine",
        &[502],
    ),
    (
        "a length with a space in it",
        "HTTP/1.1 200 OK\r\nContent-Length: 4 0\r\n\r\nfine",
        &[502],
    ),
    (
        "a coding that is nearly chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        &[502],
    ),
    (
        "a coding behind a tabulator of its own",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        &[502],
    ),
    (
        "chunked and then not",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        &[502],
    ),
    (
        "chunked twice",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[502],
    ),
    (
        "chunks of HTTP/1.0",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[502],
    ),
    (
        "a size that is none",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nfine\r\n0\r\n\r\n",
        &[502],
    ),
    (
        "a size with a prefix",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x4\r\nfine\r\n0\r\n\r\n",
        &[502],
    ),
    (
        "a size that overflows",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000004\r\nfine\r\n0\r\n\r\n",
        &[502],
    ),
    (
        "a chunk longer than it says",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfine\r\n0\r\n\r\n",
        &[502],
    ),
    (
        "a folded field",
        "HTTP/1.1 200 OK\r\nX-A: b\r\n Content-Length: 0\r\nContent-Length: 4\r\n\r\nfine",
        &[502],
    ),
    (
        "a space before a colon",
        "HTTP/1.1 200 OK\r\nContent-Length : 0\r\nContent-Length: 4\r\n\r\nfine",
        &[502],
    ),
    (
        "a line without a colon",
        "HTTP/1.1 200 OK\r\nContent-Length\r\nContent-Length: 4\r\n\r\nfine",
        &[502],
    ),
    (
        "a zero byte in a name",
        "HTTP/1.1 200 OK\r\nX\0: a\r\nContent-Length: 4\r\n\r\nfine",
        &[502],
    ),
    (
        "a zero byte in a value",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 4\r\n\r\nfine",
        &[502],
    ),
    (
        "a bare CR in a value",
        "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: evil\r\nContent-Length: 4\r\n\r\nfine",
        &[502],
    ),
    (
        "a version of the future",
        "HTTP/2.0 200 OK\r\nContent-Length: 4\r\n\r\nfine",
        &[502],
    ),
    (
        "a version that is none",
        "HTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
        &[502],
    ),
    (
        "a status of four digits",
        "HTTP/1.1 2000 OK\r\nContent-Length: 4\r\n\r\nfine",
        &[502],
    ),
    (
        "content with a 204",
        "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nfine",
        &[204],
    ),
    (
        "chunks with a 204",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
        &[204, 502],
    ),
    (
        "content with an interim answer",
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 4\r\n\r\nfineHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
        &[502],
    ),
    (
        "less than there is",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
        &[200],
    ),
    (
        "a second answer behind chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
        &[200],
    ),
    (
        "a trailer section that frames",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\nContent-Length: 0\r\nSet-Cookie: evil\r\n\r\n",
        &[200],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_could_be_read_in_two_ways_is_no_answer_and_nothing_behind_it_is_one() {
    for (what, bytes, expected) in CASES {
        let text = format!("{bytes}{EVIL}");
        // On connections that stay open, so that what is left over could be taken for the next answer.
        let app = Application::start(move |seen| {
            let text = match seen.line().contains("/evil") {
                true => text.clone().into_bytes(),
                false => ok("cache-control: max-age=60\r\n", "good"),
            };
            vec![Act::Send(text)]
        })
        .await;
        let edge = TestEdge::start_http(&app.url(), "", "").await;
        for (number, method) in ["GET", "POST", "GET"].into_iter().enumerate() {
            let mut client = edge.client().await;
            client.send(request(method, &format!("/evil{number}"), &[])).await;
            if let Some(answer) = client.try_answer(false).await {
                assert!(expected.contains(&answer.status), "{what}: {}", answer.head);
                let text = String::from_utf8_lossy(&answer.body);
                assert!(
                    !text.contains("evil") && !answer.head.contains("evil"),
                    "{what}: {text}"
                );
                assert!(answer.status != 200 || text == "fine", "{what}: {text}");
                if answer.status == 502 {
                    assert!(!is_kept(&answer), "{what}");
                }
            }
            for innocent in [format!("/good{number}"), "/good".to_owned()] {
                let answer = edge.get(&innocent, &[]).await;
                assert_eq!((answer.status, answer.text()), (200, "good"), "after {what}");
            }
            assert_eq!(
                edge.ask("POST", "/good", &[]).await.text(),
                "good",
                "after {what}"
            );
        }
        edge.stop().await;
    }
}

fn is_kept(answer: &Answer) -> bool {
    let status = answer.field("cache-status").unwrap_or_default();
    status.contains("; stored") || status.contains("; hit")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_feed_alone_ends_a_line_and_nothing_else() {
    // RFC 9112, 2.2 lets a recipient take it for a line's end. What it splits off is a field of that answer, as if the
    // server had said so, and goes on as one, between CR and LF; it frames nothing anew.
    let app = Application::start(|seen| {
        let text: &[u8] = match seen.line().contains("/split") {
            true => b"HTTP/1.1 200 OK\nX-A: b\nX-C: d\ncontent-length: 4\n\nfine",
            false => b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood",
        };
        vec![Act::Send(text.to_vec())]
    })
    .await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    for _ in 0..2 {
        let answer = edge.get("/split", &[]).await;
        assert!([200, 502].contains(&answer.status));
        assert!(
            !answer.head.replace("\r\n", "").contains(['\r', '\n']),
            "{:?}",
            answer.head
        );
        assert_eq!(edge.get("/good", &[]).await.text(), "good");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_wrote_into_its_url_splits_no_answer() {
    // An application that copies a decoded query into a field, as careless redirects do.
    let app = Application::start(|seen| {
        let query = seen.line().split(['?', ' ']).nth(2).unwrap_or_default().to_owned();
        let decoded = query.replace("%0d", "\r").replace("%0a", "\n");
        let text = format!(
            "HTTP/1.1 302 Found\r\nlocation: /{decoded}\r\ncache-control: max-age=60\r\ncontent-length: 0\r\n\r\n"
        );
        vec![Act::Send(text.into_bytes())]
    })
    .await;
    let edge = TestEdge::start_http(&app.url(), "query = \"keep\"", "").await;
    let split =
        "%0d%0acontent-length:%200%0d%0a%0d%0aHTTP/1.1%20200%20OK%0d%0acontent-length:%204%0d%0a%0d%0aevil";
    let attack = edge.get(&format!("/r?{split}"), &[]).await;
    assert!([302, 502].contains(&attack.status), "{}", attack.head);
    for path in ["/r?x", "/other?y", "/r?x"] {
        let innocent = edge.get(path, &[]).await;
        let expected = format!("/{}", path.split('?').nth(1).unwrap());
        assert_eq!(
            (innocent.status, innocent.field("location")),
            (302, Some(&*expected)),
            "{path}"
        );
        assert!(innocent.body.is_empty());
    }
    edge.stop().await;
}
