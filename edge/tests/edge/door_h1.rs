//! HTTP/1: framing, smuggling, hosts, limits.

use std::time::Duration;

use edge::config::Limits;
use edge::exchange::record::End;

use super::client::{TestClient, soon};
use super::door::{TestDoor, quick};

const OK: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends a request and one more behind it: the first is refused with `status` in one response, and nothing is ever
/// answered after it.
async fn refused(door: &TestDoor, request: &str, status: u16) {
    let mut client = TestClient::plain(door.plain).await;
    client.send([request.as_bytes(), OK.as_bytes()].concat()).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, status, "{request:?}");
    assert_eq!(answer.field("connection"), Some("close"), "{request:?}");
    assert!(
        client.is_closed().await,
        "{request:?} was followed by another response"
    );
}

#[tokio::test]
async fn content_length_with_transfer_encoding_is_refused() {
    let door = TestDoor::start();
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
    ] {
        for method in ["POST", "GET"] {
            refused(
                &door,
                &format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n"),
                400,
            )
            .await;
        }
    }
    assert_eq!(door.asked(), 0);
}

#[tokio::test]
async fn a_content_length_that_is_no_number_is_refused() {
    let door = TestDoor::start();
    for value in [
        "+5",
        "-1",
        "0x5",
        "5_0",
        "18446744073709551616",
        "",
        "5, 10",
        "5, 5",
        "1 0",
        "0o5",
        "-0",
    ] {
        refused(
            &door,
            &format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {value}\r\n\r\nhello"),
            400,
        )
        .await;
    }
    refused(
        &door,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 10\r\n\r\nhello",
        400,
    )
    .await;
    assert_eq!(door.asked(), 0);
}

#[tokio::test]
async fn a_transfer_coding_is_refused_however_it_is_spelled() {
    let door = TestDoor::start();
    for value in [
        "chunked",
        "Chunked",
        "xchunked",
        "chunked, identity",
        ",chunked",
        "chunked,",
        "\tchunked",
        "chunked ",
        "gzip",
        "identity",
        "",
        "chunked, chunked",
        "chunked;a=b",
        "gzip, chunked",
        "chunked\x0b",
    ] {
        refused(
            &door,
            &format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {value}\r\n\r\n0\r\n\r\n"),
            400,
        )
        .await;
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity";
    refused(
        &door,
        &format!("POST / HTTP/1.1\r\nHost: a\r\n{twice}\r\n\r\n0\r\n\r\n"),
        400,
    )
    .await;
    refused(
        &door,
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    )
    .await;
    assert_eq!(door.asked(), 0);
}

#[tokio::test]
async fn chunks_are_never_read_whatever_they_say() {
    let door = TestDoor::start();
    for chunks in [
        "FFFFFFFFFFFFFFFF0\r\nx",
        "0x5\r\nhello",
        "1_0\r\nx",
        "-1\r\nx",
        "2;\nxx\r\n0\r\n\r\n",
        "5;\rhello\r\n0\r\n\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        refused(&door, &request, 400).await;
    }
    assert_eq!(door.asked(), 0);
}

#[tokio::test]
async fn fields_with_forbidden_bytes_are_refused() {
    let door = TestDoor::start();
    for line in [
        "X: a\rb",
        "X: a\0b",
        "X : a",
        " X: a",
        "X: a\r\n b",
        "X\tY: a",
        "Bad[: a",
        "NoColon",
        ": a",
    ] {
        refused(
            &door,
            &format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n"),
            400,
        )
        .await;
    }
    refused(&door, "GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n", 400).await;
    assert_eq!(door.asked(), 0);
}

#[tokio::test]
async fn a_bare_line_feed_ends_no_line() {
    let door = TestDoor::start();
    for request in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
    ] {
        refused(&door, request, 400).await;
    }
    assert_eq!(door.asked(), 0);
}

#[tokio::test]
async fn a_body_where_none_belongs_is_never_taken_for_a_request() {
    let door = TestDoor::start();
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{hidden}",
            hidden.len()
        );
        let mut client = TestClient::plain(door.plain).await;
        client.send(&request).await;
        client.send(OK).await;
        let answer = client.try_answer(method == "HEAD").await.unwrap();
        assert_eq!(
            (answer.status, answer.field("connection")),
            (400, Some("close")),
            "{method}"
        );
        assert!(client.is_closed().await, "{method}");
    }
    assert_eq!(door.asked(), 0);
}

#[tokio::test]
async fn a_method_with_content_is_answered_and_the_connection_ends() {
    let door = TestDoor::start();
    refused(
        &door,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        405,
    )
    .await;
    refused(
        &door,
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n",
        405,
    )
    .await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    refused(&door, request, 405).await;
}

#[tokio::test]
async fn the_answer_survives_a_body_that_still_comes() {
    let door = TestDoor::start();
    let mut client = TestClient::plain(door.plain).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n")
        .await;
    for _ in 0..6 {
        let _ = client.try_send(vec![b'x'; 10_000]).await;
    }
    assert_eq!(client.answer().await.status, 405);
}

#[tokio::test]
async fn methods_without_content_keep_the_connection() {
    let door = TestDoor::start();
    let mut client = TestClient::plain(door.plain).await;
    for method in ["POST", "PUT", "DELETE", "TRACE", "PURGE", "OPTIONS", "get"] {
        client
            .send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.field("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
}

#[tokio::test]
async fn an_upgrade_is_not_taken_and_the_next_request_is_answered() {
    let door = TestDoor::start();
    for protocol in ["foo", "websocket", "h2c"] {
        let mut client = TestClient::plain(door.plain).await;
        let fields = "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__";
        client
            .send(format!(
                "GET /1 HTTP/1.1\r\nHost: a\r\nUpgrade: {protocol}\r\n{fields}\r\n\r\n{OK}"
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (200, "GET a /1"));
        assert_eq!(client.answer().await.text(), "GET a /next");
    }
}

#[tokio::test]
async fn http10_closes_unless_asked_to_stay() {
    let door = TestDoor::start();
    let mut client = TestClient::plain(door.plain).await;
    client
        .send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.status, 200);
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_odd_expectation_is_417_and_a_plain_one_is_fine() {
    let door = TestDoor::start();
    refused(&door, "GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417).await;
    let mut client = TestClient::plain(door.plain).await;
    client
        .send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n{OK}"
        ))
        .await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.answer().await.text(), "GET a /next");
}

#[tokio::test]
async fn a_bad_host_is_refused() {
    let door = TestDoor::start();
    refused(&door, "GET / HTTP/1.1\r\n\r\n", 400).await;
    for host in ["", "a, b", "user@a", "a/path", "a b", "[::1", "a:80x"] {
        refused(&door, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400).await;
    }
    refused(&door, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400).await;
    assert_eq!(door.asked(), 0);
    assert_eq!(
        door.metric("edge_requests_refused_total{reason=\"host-missing\"}"),
        1
    );
    assert_eq!(
        door.metric("edge_requests_refused_total{reason=\"host-repeated\"}"),
        1
    );
}

#[tokio::test]
async fn a_target_wins_over_host_and_nothing_is_proxied() {
    let door = TestDoor::start();
    let mut client = TestClient::plain(door.plain).await;
    client
        .send("GET http://evil.test/x HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.text(), "GET evil.test /x");
    refused(&door, "GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400).await;
    refused(&door, "GET ftp://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400).await;
    refused(&door, "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400).await;
    refused(&door, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 405).await;
    refused(&door, "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n", 405).await;
    refused(&door, "GET b:443 HTTP/1.1\r\nHost: b\r\n\r\n", 400).await;
    refused(&door, "GET /b\u{fc} HTTP/1.1\r\nHost: b\r\n\r\n", 400).await;
    refused(&door, "GET /a\\b HTTP/1.1\r\nHost: b\r\n\r\n", 400).await;
    refused(&door, "GET /a#b HTTP/1.1\r\nHost: b\r\n\r\n", 400).await;
}

#[tokio::test]
async fn a_hundred_pipelined_requests_are_answered_in_order() {
    let door = TestDoor::start();
    let mut client = TestClient::plain(door.plain).await;
    let all: String = (0..100)
        .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    client.send(all).await;
    for n in 0..100 {
        assert_eq!(client.answer().await.text(), format!("GET a /{n}"));
    }
}

#[tokio::test]
async fn a_head_over_its_limits_is_refused_and_the_connection_ends() {
    let door = TestDoor::start();
    let get = |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let check = async |request: String, status: &[u16]| {
        let mut client = TestClient::plain(door.plain).await;
        let _ = client.try_send(&request).await;
        let answer = client.answer().await;
        assert!(
            status.contains(&answer.status),
            "{} of {} bytes",
            answer.status,
            request.len()
        );
        assert!(client.is_closed().await);
    };
    check(get(&format!("/{}", "a".repeat(9 * 1024)), ""), &[414]).await;
    check(get(&format!("/{}", "a".repeat(64 * 1024)), ""), &[414, 431]).await;
    check(get("/", &format!("X: {}\r\n", "a".repeat(64 * 1024))), &[431]).await;
    check(get("/", &"X: a\r\n".repeat(10_000)), &[431]).await;
    check(get("/", &"X: a\r\n".repeat(101)), &[431]).await;
    check("a".repeat(1024 * 1024), &[400, 431]).await;
    let mut client = TestClient::plain(door.plain).await;
    client.send(get("/", &"X: a\r\n".repeat(99))).await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn another_number_of_fields_can_be_the_limit() {
    for count in [10, 200] {
        let door = TestDoor::with(Limits {
            header_count: count,
            ..Limits::default()
        });
        let get = |fields: usize| {
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
                "X: a\r\n".repeat(fields - 1)
            )
        };
        let mut client = TestClient::plain(door.plain).await;
        client.send(get(count)).await;
        assert_eq!(client.answer().await.status, 200);
        client.send(get(count + 1)).await;
        assert_eq!(client.answer().await.status, 431);
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn what_is_not_http_is_closed() {
    let door = TestDoor::start();
    let garbage: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"\xff\xfe\x00\x01\r\n\r\n",
    ];
    for bytes in garbage {
        let mut client = TestClient::plain(door.plain).await;
        client.send(bytes).await;
        let answer = client.rest().await;
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"),
            "{answer:?}"
        );
    }
    assert_eq!(door.asked(), 0);
}

#[tokio::test]
async fn a_panic_costs_one_request_only() {
    let door = TestDoor::start();
    for (path, panics) in [("/panic", 1), ("/panic-at-once", 2)] {
        let mut client = TestClient::plain(door.plain).await;
        client
            .send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n{OK}"))
            .await;
        assert_eq!(client.answer().await.status, 500);
        assert_eq!(client.answer().await.text(), "GET a /next");
        assert_eq!(door.drain.panics(), panics);
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let door = TestDoor::start();
    let mut client = TestClient::plain(door.plain).await;
    client
        .send(format!("HEAD /big/1000000 HTTP/1.1\r\nHost: a\r\n\r\n{OK}"))
        .await;
    let answer = client.answer_to_head().await;
    assert_eq!(
        (answer.status, answer.field("content-length")),
        (200, Some("1000000"))
    );
    assert!(answer.field("date").is_some());
    assert_eq!(client.answer().await.text(), "GET a /next");
    client
        .send(format!("GET /304 HTTP/1.1\r\nHost: a\r\n\r\n{OK}"))
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("content-length")), (304, None));
    assert_eq!(client.answer().await.text(), "GET a /next");
    client.send("GET /parts HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.text(), answer.field("content-length")),
        ("abc", Some("3"))
    );
}

#[tokio::test]
async fn a_broken_body_never_looks_complete() {
    let door = TestDoor::start();
    for path in ["/broken", "/broken-length"] {
        let mut client = TestClient::plain(door.plain).await;
        client
            .send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        assert!(client.try_answer(false).await.is_none(), "{path}");
    }
    assert_eq!(
        *door.script.ends.lock().unwrap(),
        [(4, End::Broken), (4, End::Broken)]
    );
}

#[tokio::test]
async fn a_large_body_arrives_whole_in_the_clear_and_over_tls() {
    let door = TestDoor::start();
    let request = "GET /big/5000000 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut clients = [
        TestClient::plain(door.plain).await,
        TestClient::tls(door.https, &door.ca, &["http/1.1"]).await,
    ];
    for client in &mut clients {
        client.send(request).await;
        assert_eq!(client.answer().await.body.len(), 5_000_000);
    }
}

#[tokio::test]
async fn a_client_that_closes_its_side_still_gets_its_answer() {
    let door = TestDoor::start();
    let mut client = TestClient::plain(door.plain).await;
    client.send("GET /gate HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.finish().await;
    door.script.gate.0.add_permits(1);
    assert_eq!(client.answer().await.text(), "open");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn the_redirecting_listener_only_redirects() {
    let door = TestDoor::start();
    let mut client = TestClient::plain(door.redirect).await;
    client.send(OK).await;
    assert_eq!(client.answer().await.status, 308);
    assert_eq!(door.asked(), 0);
}

#[tokio::test]
async fn a_slow_head_is_408() {
    let door = TestDoor::with(quick());
    let mut client = TestClient::plain(door.plain).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
    assert_eq!(client.answer().await.status, 408);
    assert!(client.is_closed().await);
    door.metric_reaches("edge_connections_closed_total{reason=\"header-timeout\"}", 1)
        .await;
}

#[tokio::test]
async fn a_head_that_drips_gets_no_more_time() {
    let door = TestDoor::with(quick());
    let mut client = TestClient::plain(door.plain).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
    let drip = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        while client.try_send("X: a\r\n").await.is_ok() {
            ticks.tick().await;
        }
    };
    soon("the end of a drip", drip).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let door = TestDoor::with(quick());
    let mut silent = TestClient::plain(door.plain).await;
    let mut once = TestClient::plain(door.plain).await;
    once.send(OK).await;
    assert_eq!(once.answer().await.status, 200);
    assert!(silent.is_closed().await);
    assert!(once.is_closed().await);
    door.metric_reaches("edge_connections_closed_total{reason=\"idle\"}", 2)
        .await;
}

#[tokio::test]
async fn a_connection_that_was_quiet_gives_its_buffers_back_and_answers_again() {
    const DOZED: &str = "edge_connections_dozed_total";
    let door = TestDoor::start();
    let mut clients = [
        TestClient::plain(door.plain).await,
        TestClient::tls(door.https, &door.ca, &["http/1.1"]).await,
    ];
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(OK).await;
        assert_eq!(client.answer().await.text(), "GET a /next");
        let before = 3 * number as u64;
        door.metric_reaches(DOZED, before + 1).await;
        // Half a head wakes it, and nobody dozes over that.
        client.send("GET /half HTTP/1.1\r\nHo").await;
        client
            .send("st: a\r\n\r\nGET /behind HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.text(), "GET a /half");
        assert_eq!(client.answer().await.text(), "GET a /behind");
        door.metric_reaches(DOZED, before + 2).await;
        client.send("GET /big/3000000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.body.len(), 3_000_000);
        door.metric_reaches(DOZED, before + 3).await;
    }
    let [plain, mut tls] = clients;
    // One goes, and one is told to go.
    drop(plain);
    door.metric_reaches("edge_connections_closed_total{reason=\"client\"}", 1)
        .await;
    door.drain.begin();
    assert!(tls.is_closed().await);
    door.metric_reaches("edge_connections_closed_total{reason=\"drain\"}", 1)
        .await;
}

#[tokio::test]
async fn a_slow_answer_of_ours_is_not_the_clients_fault() {
    let door = TestDoor::with(quick());
    let mut client = TestClient::plain(door.plain).await;
    client.send("GET /gate HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut silent = TestClient::plain(door.plain).await;
    assert!(silent.is_closed().await);
    let mut stalled = TestClient::plain(door.plain).await;
    stalled.send(OK).await;
    stalled.answer().await;
    assert!(stalled.is_closed().await);
    door.script.gate.0.add_permits(1);
    assert_eq!(client.answer().await.text(), "open");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_ended() {
    let door = TestDoor::with(quick());
    let mut client = TestClient::plain(door.plain).await;
    client.send("GET /big/50000000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    door.metric_reaches("edge_connections_closed_total{reason=\"stalled\"}", 1)
        .await;
    assert!(client.try_answer(false).await.is_none());
    let ends = door.script.ends.lock().unwrap();
    assert!(matches!(ends[..], [(_, End::ClientGone)]), "{ends:?}");
}

/// Whether a new connection is closed without a word; the reset may even be faster than the connect.
async fn is_turned_away(door: &TestDoor) -> bool {
    match TestClient::try_plain(door.plain).await {
        Ok(mut client) => client.is_closed().await,
        Err(_) => true,
    }
}

#[tokio::test]
async fn connections_from_one_address_are_limited() {
    let door = TestDoor::with(Limits {
        connections_per_address: 2,
        ..Limits::default()
    });
    let mut held = [
        TestClient::plain(door.plain).await,
        TestClient::plain(door.plain).await,
    ];
    for client in &mut held {
        client.send(OK).await;
        assert_eq!(client.answer().await.status, 200);
    }
    assert!(is_turned_away(&door).await);
    door.metric_reaches("edge_connections_refused_total{reason=\"address\"}", 1)
        .await;
    drop(held);
    door.metric_reaches("edge_connections_closed_total{reason=\"client\"}", 2)
        .await;
    let again = async {
        loop {
            if let Ok(mut client) = TestClient::try_plain(door.plain).await
                && client.try_send(OK).await.is_ok()
                && client.try_answer(false).await.is_some()
            {
                return;
            }
        }
    };
    soon("a place that was freed", again).await;
}

#[tokio::test]
async fn connections_in_all_are_limited() {
    let door = TestDoor::with(Limits {
        connections: 1,
        ..Limits::default()
    });
    let mut first = TestClient::plain(door.plain).await;
    first.send(OK).await;
    assert_eq!(first.answer().await.status, 200);
    assert!(is_turned_away(&door).await);
    door.metric_reaches("edge_connections_refused_total{reason=\"all\"}", 1)
        .await;
    assert_eq!(door.metric("edge_connections"), 1);
}
