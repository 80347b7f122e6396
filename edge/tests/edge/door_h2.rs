//! HTTP/2: the protocol that was agreed on, floods, limits.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use edge::config::Limits;
use edge::exchange::record::End;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::client::{
    CONTINUATION, DATA, Frame, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, TestClient,
    WINDOW_UPDATE, block, frame, get, request, soon,
};
use super::door::{TestDoor, quick};

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "localhost"),
    (":path", "/"),
];

async fn connect(door: &TestDoor) -> TestClient {
    connect_with(door, &[]).await
}

async fn connect_with(door: &TestDoor, settings: &[(u16, u32)]) -> TestClient {
    let mut client = TestClient::tls(door.https, &door.ca, &["h2"]).await;
    client.begin_h2(settings).await;
    client
}

/// Sends `burst` again and again until the server ends the connection; returns the code of its GOAWAY.
async fn flood(mut client: TestClient, mut burst: impl FnMut(u32) -> Vec<u8>) -> Option<u32> {
    let sent = soon("the end of a flood", async {
        let mut n = 0;
        while client.try_send(burst(n)).await.is_ok() {
            n += 1;
            if n > 10_000 {
                break;
            }
        }
        n
    })
    .await;
    assert!(sent < 10_000, "the flood was never ended");
    client.goaway().await
}

/// After whatever was done, the door still answers others.
async fn still_answers(door: &TestDoor) {
    let mut client = connect(door).await;
    client.send(get(1, "/")).await;
    assert_eq!(client.h2_status(1).await, 200);
}

fn is_end(stream: u32) -> impl Fn(&Frame) -> bool {
    move |frame| frame.stream == stream && frame.kind == DATA && frame.flags & 1 == 1
}

#[tokio::test]
async fn streams_are_answered_side_by_side() {
    let door = TestDoor::start();
    let mut client = connect(&door).await;
    client.send([get(1, "/gate"), get(3, "/x")].concat()).await;
    let data = client.frame_until("data", |frame| frame.kind == DATA).await;
    assert_eq!((data.stream, &*data.payload), (3, &b"GET localhost /x"[..]));
    door.script.gate.0.add_permits(1);
    let data = client.frame_until("data", |frame| frame.kind == DATA).await;
    assert_eq!((data.stream, &*data.payload), (1, &b"open"[..]));
}

#[tokio::test]
async fn a_body_larger_than_the_windows_arrives_whole() {
    let door = TestDoor::start();
    let mut client = connect(&door).await;
    client.send(get(1, "/big/3000000")).await;
    let mut got = 0;
    while got < 3_000_000 {
        let data = client.frame_until("data", |frame| frame.kind == DATA).await;
        got += data.payload.len();
        let more = u32::try_from(data.payload.len()).unwrap().to_be_bytes();
        if !data.payload.is_empty() {
            client
                .send(
                    [
                        frame(WINDOW_UPDATE, 0, 0, &more),
                        frame(WINDOW_UPDATE, 0, 1, &more),
                    ]
                    .concat(),
                )
                .await;
        }
    }
    let ended = async {
        while door.script.ends.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon("the record", ended).await;
    assert_eq!(*door.script.ends.lock().unwrap(), [(3_000_000, End::Whole)]);
}

#[tokio::test]
async fn the_end_of_a_full_frame_is_no_record_of_its_own() {
    const WINDOW: u32 = 1 << 20;
    let door = TestDoor::start();
    let (way, seen) = tapped(door.https).await;
    let mut client = TestClient::tls_over(way, &door.ca, &["h2"]).await;
    client.begin_h2(&[(4, WINDOW)]).await;
    let more = frame(WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
    client.send([more, get(1, "/big/200000")].concat()).await;
    let (mut got, mut full) = (0, 0);
    while got < 200_000 {
        let data = client.frame_until("data", |frame| frame.kind == DATA).await;
        got += data.payload.len();
        full += usize::from(data.payload.len() == 16 * 1024);
    }
    assert_eq!((got, full), (200_000, 12));
    let seen = seen.lock().unwrap();
    let lengths = record_lengths(&seen);
    let of_full = lengths.iter().filter(|length| **length > 16 * 1024).count();
    // A few short ones belong to the handshake and to the settings.
    let short = lengths.iter().filter(|length| **length < 64).count();
    assert!(of_full >= 10 && short < 8, "{lengths:?}");
}

#[tokio::test]
async fn a_client_may_take_frames_larger_than_what_waits_for_the_socket() {
    const LARGE: u32 = 1 << 20;
    let door = TestDoor::start();
    let mut client = connect_with(&door, &[(4, LARGE), (5, LARGE)]).await;
    let more = frame(WINDOW_UPDATE, 0, 0, &LARGE.to_be_bytes());
    client.send([more, get(1, "/big/300000")].concat()).await;
    let (mut got, mut longest) = (0, 0);
    while got < 300_000 {
        let data = client.frame_until("data", |frame| frame.kind == DATA).await;
        got += data.payload.len();
        longest = longest.max(data.payload.len());
    }
    assert_eq!(got, 300_000);
    assert!(longest > 100_000, "{longest}");
}

/// A way to `address`, and what has come back on it.
async fn tapped(address: SocketAddr) -> (TcpStream, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let way = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (client, _) = listener.accept().await.unwrap();
    let server = TcpStream::connect(address).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let ((mut requests, mut back), (mut answers, mut to)) = (client.into_split(), server.into_split());
    let writes = Arc::clone(&seen);
    let drain = edge::drain::Drain::default();
    drain.spawn("tap-requests", async move {
        let _ = tokio::io::copy(&mut requests, &mut to).await;
    });
    drain.spawn("tap-answers", async move {
        let mut space = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = answers.read(&mut space).await {
            writes.lock().unwrap().extend_from_slice(&space[..count]);
            if back.write_all(&space[..count]).await.is_err() {
                break;
            }
        }
    });
    (way, seen)
}

/// The lengths of TLS records, as their headers say (RFC 8446, 5.1).
fn record_lengths(mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(*high) << 8 | usize::from(*low);
        lengths.push(length);
        bytes = rest.get(length..).unwrap_or_default();
    }
    lengths
}

#[tokio::test]
async fn the_protocol_is_the_one_that_alpn_chose() {
    let door = TestDoor::start();
    let mut client = TestClient::tls(door.https, &door.ca, &["h2"]).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!client.rest().await.starts_with(b"HTTP/1"));
    let mut client = TestClient::tls(door.https, &door.ca, &["http/1.1"]).await;
    client.begin_h2(&[]).await;
    let answer = client.rest().await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"),
        "{answer:?}"
    );
    assert_eq!(door.asked(), 0);
}

#[tokio::test]
async fn the_validator_is_the_same_as_for_http1() {
    let door = TestDoor::start();
    let mut client = connect(&door).await;
    let with = |extra: &[(&'static str, &'static str)]| [&GET[..], extra].concat();
    let path = |path| [&GET[..3], &[(":path", path)]].concat();
    let authority = |authority| [&GET[..2], &[(":authority", authority), (":path", "/")]].concat();
    let cases: [(Vec<(&str, &str)>, u16); 8] = [
        (with(&[("host", "localhost")]), 200),
        (with(&[("host", "other")]), 400),
        (with(&[("host", "localhost"), ("host", "localhost")]), 400),
        (path("*"), 400),
        (path("/a\\b"), 400),
        (authority("u@localhost"), 400),
        (with(&[("expect", "x")]), 417),
        ([&[(":method", "POST")], &GET[1..]].concat(), 405),
    ];
    for (n, (fields, status)) in cases.into_iter().enumerate() {
        let stream = u32::try_from(2 * n + 1).unwrap();
        client.send(request(stream, &fields)).await;
        assert_eq!(client.h2_status(stream).await, status, "{fields:?}");
    }
}

#[tokio::test]
async fn malformed_requests_are_never_answered() {
    let door = TestDoor::start();
    let with = |extra: &[(&'static str, &'static str)]| [&GET[..], extra].concat();
    let cases: [Vec<(&str, &str)>; 11] = [
        with(&[("connection", "close")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "foo")]),
        with(&[("Upper", "case")]),
        with(&[("x", "a\r\nb: c")]),
        with(&[("te", "gzip")]),
        with(&[(":path", "/again")]),
        with(&[(":unknown", "x")]),
        with(&[(":status", "200")]),
        GET[1..].to_vec(),
        [&[("x", "before")], &GET[..]].concat(),
    ];
    for fields in cases {
        let mut client = connect(&door).await;
        client.send(request(1, &fields)).await;
        let ends = |frame: &Frame| [RST_STREAM, HEADERS, GOAWAY].contains(&frame.kind);
        assert_ne!(
            client.frame_until("a reset", ends).await.kind,
            HEADERS,
            "{fields:?}"
        );
    }
    assert_eq!(door.asked(), 0);
}

#[tokio::test]
async fn a_malformed_request_leaves_the_others_alone() {
    let door = TestDoor::start();
    let mut client = connect(&door).await;
    client
        .send(request(1, &[&GET[..], &[("connection", "close")]].concat()))
        .await;
    client
        .frame_until("a reset", |frame| frame.kind == RST_STREAM)
        .await;
    client.send(get(3, "/")).await;
    assert_eq!(client.h2_status(3).await, 200);
}

#[tokio::test]
async fn content_is_refused_per_stream() {
    let door = TestDoor::start();
    let mut client = connect(&door).await;
    client.send(frame(HEADERS, 4, 1, &block(&GET))).await;
    assert_eq!(client.h2_status(1).await, 400);
    client.send(get(3, "/")).await;
    assert_eq!(client.h2_status(3).await, 200);
}

#[tokio::test]
async fn a_broken_body_is_reset() {
    let door = TestDoor::start();
    let mut client = connect(&door).await;
    for (stream, path) in [(1, "/broken"), (3, "/broken-length")] {
        client.send(get(stream, path)).await;
        let reset = client
            .frame_until("a reset", |frame| {
                assert!(!is_end(stream)(frame), "{path} ended cleanly");
                frame.kind == RST_STREAM
            })
            .await;
        assert_eq!(reset.stream, stream);
    }
}

#[tokio::test]
async fn a_panic_costs_one_stream_only() {
    let door = TestDoor::start();
    let mut client = connect(&door).await;
    client
        .send([get(1, "/panic"), get(3, "/panic-at-once"), get(5, "/at-once")].concat())
        .await;
    assert_eq!(client.h2_status(1).await, 500);
    assert_eq!(client.h2_status(3).await, 500);
    assert_eq!(client.h2_status(5).await, 200);
    assert_eq!(door.drain.panics(), 2);
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let door = TestDoor::start();
    let code = flood(connect(&door).await, |n| {
        (0..200)
            .flat_map(|i| {
                let stream = 2 * (200 * n + i) + 1;
                [get(stream, "/"), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
            })
            .collect()
    })
    .await;
    assert_eq!(code, Some(11));
    still_answers(&door).await;
}

#[tokio::test]
async fn resets_that_the_server_is_made_to_send_end_the_connection() {
    let door = TestDoor::start();
    type Bait = fn(u32) -> Vec<u8>;
    let baits: [(&str, Bait); 3] = [
        ("zero window update", |stream| {
            frame(WINDOW_UPDATE, 0, stream, &[0; 4])
        }),
        ("self dependency", |stream| {
            frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[16]].concat())
        }),
        ("window overflow", |stream| {
            frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff])
        }),
    ];
    for (name, bait) in baits {
        let code = flood(connect(&door).await, |n| {
            (0..100)
                .flat_map(|i| {
                    let stream = 2 * (100 * n + i) + 1;
                    [get(stream, "/gate"), bait(stream)].concat()
                })
                .collect()
        })
        .await;
        assert!(code.is_some(), "{name}");
    }
    still_answers(&door).await;
}

#[tokio::test]
async fn floods_without_a_request_spend_their_budget() {
    let door = TestDoor::start();
    type Burst = fn() -> Vec<u8>;
    let bursts: [(&str, Burst); 4] = [
        ("settings", || {
            frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(100)
        }),
        ("ping", || frame(PING, 0, 0, b"12345678").repeat(100)),
        ("priority", || frame(PRIORITY, 0, 5, &[0, 0, 0, 0, 1]).repeat(100)),
        ("window update", || {
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(100)
        }),
    ];
    for (name, burst) in bursts {
        let code = flood(connect(&door).await, |_| burst()).await;
        assert!(matches!(code, Some(11) | None), "{name}: {code:?}");
    }
    door.metric_reaches("edge_connections_closed_total{reason=\"unproductive\"}", 1)
        .await;
    still_answers(&door).await;
}

#[tokio::test]
async fn empty_data_frames_end_the_connection() {
    let door = TestDoor::start();
    let mut client = connect(&door).await;
    client
        .send(frame(
            HEADERS,
            4,
            1,
            &block(&[&[(":method", "POST")], &GET[1..]].concat()),
        ))
        .await;
    flood(client, |_| frame(DATA, 0, 1, &[]).repeat(100)).await;
    still_answers(&door).await;
}

#[tokio::test]
async fn a_continuation_flood_ends_the_connection() {
    let door = TestDoor::start();
    let mut client = connect(&door).await;
    client.send(frame(HEADERS, 1, 1, &[])).await;
    let fields = block(&[("x", &"a".repeat(1000))]);
    flood(client, |_| frame(CONTINUATION, 0, 1, &fields)).await;
    still_answers(&door).await;
}

#[tokio::test]
async fn a_header_bomb_ends_the_connection() {
    let door = TestDoor::start();
    let mut client = connect(&door).await;
    // One field of 4,000 bytes into the dynamic table, and then a reference to it, many times.
    let mut first = block(&GET);
    first.extend([&[0x40, 3][..], b"x-b", &[0x7f, 0xa1, 0x1e], &[b'B'; 4000]].concat());
    client.send(frame(HEADERS, 5, 1, &first)).await;
    assert_eq!(client.h2_status(1).await, 200);
    let bomb = |n: usize| [block(&GET), vec![0xbe; n]].concat();
    client.send(frame(HEADERS, 5, 3, &bomb(5))).await;
    assert_eq!(client.h2_status(3).await, 431);
    client.send(frame(HEADERS, 5, 5, &bomb(16_000))).await;
    assert_eq!(client.goaway().await, Some(11));
    still_answers(&door).await;
}

#[tokio::test]
async fn header_lists_that_are_too_large_spend_the_budget() {
    let door = TestDoor::start();
    let value = "a".repeat(200);
    let many = [&GET[..], &[("x", value.as_str())].repeat(75)].concat();
    flood(connect(&door).await, |n| request(2 * n + 1, &many)).await;
    door.metric_reaches("edge_connections_closed_total{reason=\"unproductive\"}", 1)
        .await;
    assert_eq!(door.asked(), 0);
    still_answers(&door).await;
}

#[tokio::test]
async fn a_header_list_over_the_limit_is_431_and_others_live() {
    let door = TestDoor::start();
    let mut client = connect(&door).await;
    let value = "a".repeat(200);
    let many = [&GET[..], &[("x", value.as_str())].repeat(75)].concat();
    client.send(request(1, &many)).await;
    assert_eq!(client.h2_status(1).await, 431);
    let too_many_fields = [&GET[..], &[("x", "a")].repeat(101)].concat();
    client.send(request(3, &too_many_fields)).await;
    assert_eq!(client.h2_status(3).await, 431);
    client.send(get(5, "/")).await;
    assert_eq!(client.h2_status(5).await, 200);
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_one_by_one() {
    let door = TestDoor::with(Limits {
        h2_streams: 10,
        ..Limits::default()
    });
    let mut client = connect(&door).await;
    client
        .frame_until("settings", |frame| frame.kind == SETTINGS && frame.flags == 1)
        .await;
    let all: Vec<u8> = (0..15).flat_map(|n| get(2 * n + 1, "/gate")).collect();
    client.send(all).await;
    for _ in 0..5 {
        let reset = client
            .frame_until("a reset", |frame| frame.kind == RST_STREAM)
            .await;
        assert_eq!(reset.payload, [0, 0, 0, 7]);
    }
    door.script.gate.0.add_permits(15);
    for _ in 0..10 {
        client
            .frame_until("an end", |frame| frame.kind == DATA && frame.flags & 1 == 1)
            .await;
    }
    assert_eq!(door.asked(), 10);
}

#[tokio::test]
async fn streams_with_a_shut_window_are_ended_even_under_pings() {
    let door = TestDoor::with(quick());
    let mut client = connect_with(&door, &[(4, 0)]).await;
    let all: Vec<u8> = (0..100).flat_map(|n| get(2 * n + 1, "/big/1000")).collect();
    client.send(all).await;
    let pings = async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(50));
        while client.try_send(frame(PING, 0, 0, b"12345678")).await.is_ok() {
            ticks.tick().await;
        }
    };
    soon("the end of stuck streams", pings).await;
    door.metric_reaches("edge_connections_closed_total{reason=\"stalled\"}", 1)
        .await;
    // Each stream lets go of its body by itself.
    let all = async {
        while door.script.ends.lock().unwrap().len() < 100 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    soon("the ends of all bodies", all).await;
    let ends = door.script.ends.lock().unwrap();
    assert!(
        ends.len() == 100 && ends.iter().all(|(_, end)| *end == End::ClientGone),
        "{ends:?}"
    );
}

#[tokio::test]
async fn an_idle_connection_gets_goaway_and_is_closed() {
    let door = TestDoor::with(quick());
    let mut client = connect(&door).await;
    client.send(get(1, "/")).await;
    assert_eq!(client.h2_status(1).await, 200);
    let goaway = client.frame_until("goaway", |frame| frame.kind == GOAWAY).await;
    assert_eq!(goaway.payload[4..8], [0; 4]);
    client.rest().await;
    door.metric_reaches("edge_connections_closed_total{reason=\"idle\"}", 1)
        .await;
}

#[tokio::test]
async fn silence_after_or_instead_of_a_handshake_is_ended() {
    let door = TestDoor::with(quick());
    let mut silent = TestClient::tls(door.https, &door.ca, &["h2"]).await;
    assert!(silent.rest().await.len() < 200);
    let mut mute = TestClient::plain(door.https).await;
    assert!(mute.is_closed().await);
}
