//! Each fault, seen on the wire.

use std::io::ErrorKind;
use std::time::Duration;

use origin_sync::bucket::{Barrier, Fault, Meta, Rule};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{BUCKET, Raw, TestBucket, bounded, read, status};

const SIZE: usize = 300_000;

fn body() -> Vec<u8> {
    (0..SIZE).map(|place| (place % 251) as u8).collect()
}

/// A bucket with an object `k`, open to everyone.
async fn open() -> TestBucket {
    let bucket = TestBucket::with(|options| options.anonymous_read = true).await;
    bucket
        .server
        .store()
        .put(BUCKET, "k", body(), Meta::default())
        .await
        .unwrap();
    bucket
}

/// The answer that one request for `k` gets under this fault; the next one must be sound.
async fn under(fault: Fault) -> Raw {
    let bucket = open().await;
    let rule = bucket.server.faults().add(Rule::new(fault).key("k").times(1));
    let answer = bucket.exchange("k").await;
    assert_eq!(bucket.server.faults().hits(rule), 1);
    let next = bucket.exchange("k").await;
    assert_eq!((next.status(), next.body.len()), (200, SIZE));
    answer
}

#[tokio::test]
async fn errors_of_s3() {
    let check = async |fault: Fault, expected: u16, code: &str| {
        let answer = under(fault).await;
        assert_eq!(answer.status(), expected);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains(&format!("<Code>{code}</Code>")), "{text}");
        answer
    };
    let slow = check(Fault::SlowDown, 503, "SlowDown").await;
    assert_eq!(slow.field("retry-after"), Some("1"));
    check(Fault::Status(500, "InternalError".into()), 500, "InternalError").await;
    check(
        Fault::Status(403, "RequestTimeTooSkewed".into()),
        403,
        "RequestTimeTooSkewed",
    )
    .await;
    let moved = check(
        Fault::Redirect(307, "http://other/k".into()),
        307,
        "TemporaryRedirect",
    )
    .await;
    assert_eq!(moved.field("location"), Some("http://other/k"));
    check(
        Fault::Redirect(301, "http://other/k".into()),
        301,
        "PermanentRedirect",
    )
    .await;
}

#[tokio::test]
async fn the_client_of_aws_sees_them_too() {
    let bucket = open().await;
    bucket
        .server
        .faults()
        .add(Rule::new(Fault::SlowDown).method("PUT").times(1));
    let put = || bucket.client.put_object().bucket(BUCKET).key("p").send();
    assert_eq!(status(put().await), 503);
    assert_eq!(status(put().await), 200);
    bucket
        .server
        .faults()
        .add(Rule::new(Fault::TruncateAfter(1000)).times(1));
    let get = || async {
        let got = bucket
            .client
            .get_object()
            .bucket(BUCKET)
            .key("k")
            .send()
            .await
            .unwrap();
        got.body.collect().await.map(|body| body.to_vec())
    };
    assert!(get().await.is_err());
    assert_eq!(get().await.unwrap(), body());
}

#[tokio::test]
async fn too_short_and_too_long() {
    let length = Some("300000");
    for place in [0, 1, 65_536, 299_999] {
        let answer = under(Fault::TruncateAfter(place)).await;
        assert_eq!(
            (
                answer.body.len() as u64,
                answer.field("content-length"),
                answer.end
            ),
            (place, length, Ok(()))
        );
    }
    for place in [0, 1000, 100_000] {
        let answer = under(Fault::ResetAfter(place)).await;
        assert_eq!(answer.body.len() as u64, place);
        assert_eq!(
            (answer.field("content-length"), answer.end),
            (length, Err(ErrorKind::ConnectionReset))
        );
    }
    let answer = under(Fault::WrongLength(5)).await;
    assert_eq!(
        (answer.field("content-length"), answer.body.len()),
        (Some("300005"), SIZE)
    );
    let answer = under(Fault::WrongLength(-5)).await;
    assert_eq!(
        (answer.field("content-length"), answer.body.len()),
        (Some("299995"), SIZE)
    );
}

#[tokio::test]
async fn no_answer_at_all() {
    let answer = under(Fault::ResetBeforeHeaders).await;
    assert_eq!(
        (answer.head.as_str(), answer.end),
        ("", Err(ErrorKind::ConnectionReset))
    );
    let answer = under(Fault::Garbage).await;
    assert!(!answer.head.starts_with("HTTP/"), "{}", answer.head);
}

#[tokio::test]
async fn other_bytes_and_other_names() {
    let whole = body();
    for place in [0, 65_536, 299_999] {
        let answer = under(Fault::FlipByte(place)).await;
        let differ: Vec<usize> = (0..SIZE).filter(|at| answer.body[*at] != whole[*at]).collect();
        assert_eq!(differ, [usize::try_from(place).unwrap()]);
    }
    let answer = under(Fault::WrongEtag).await;
    assert_eq!(answer.field("etag"), Some("\"00000000000000000000000000000000\""));
    assert_eq!(answer.body, body());
    let answer = under(Fault::StaleRange).await;
    assert_eq!(
        (answer.status(), answer.field("content-range")),
        (206, Some("bytes 0-149999/300000"))
    );
    assert_eq!(answer.body, body()[..150_000]);
    let answer = under(Fault::HugeHeaders(1 << 20)).await;
    assert!(answer.head.len() > 1 << 20);
    assert_eq!(answer.body, body());
}

#[tokio::test]
async fn an_unasked_304_has_no_body() {
    let bucket = open().await;
    bucket.server.faults().add(Rule::new(Fault::Unasked304));
    let mut socket = bucket.ask("k").await;
    let mut head = vec![0; 4096];
    let count = bounded(socket.read(&mut head)).await.unwrap();
    let head = String::from_utf8_lossy(&head[..count]).into_owned();
    assert!(
        head.starts_with("HTTP/1.1 304 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn a_hung_request_ends_with_its_client() {
    let bucket = open().await;
    bucket
        .server
        .faults()
        .add(Rule::new(Fault::HangBeforeHeaders).times(1));
    let socket = bucket.ask("k").await;
    bounded(bucket.server.until_seen(|seen| seen.len() == 1)).await;
    assert_eq!(bucket.server.log()[0].status, None);
    drop(socket);
    assert_eq!(bucket.exchange("k").await.body.len(), SIZE);
    // Stopping does not wait for those who hang.
    bucket.server.faults().add(Rule::new(Fault::HangBeforeHeaders));
    let _socket = bucket.ask("k").await;
    bounded(bucket.server.until_seen(|seen| seen.len() == 3)).await;
    bounded(bucket.server.stop()).await;
}

#[tokio::test]
async fn a_stalled_body_stays_open() {
    let bucket = open().await;
    bucket.server.faults().add(Rule::new(Fault::StallAfter(1000)));
    let mut socket = bucket.ask("k").await;
    let head = read_head(&mut socket).await;
    assert!(head.contains("content-length: 300000"), "{head}");
    let mut start = vec![0; 1000];
    bounded(socket.read_exact(&mut start)).await.unwrap();
    assert_eq!(start, body()[..1000]);
    let more = tokio::time::timeout(Duration::from_millis(50), socket.read(&mut start)).await;
    assert!(more.is_err(), "something came: {more:?}");
}

#[tokio::test]
async fn a_dripping_body_is_slow() {
    let bucket = open().await;
    bucket
        .server
        .store()
        .put(BUCKET, "small", vec![7; 300], Meta::default())
        .await
        .unwrap();
    bucket.server.faults().add(
        Rule::new(Fault::Drip {
            bytes_per_second: 1000,
        })
        .key("small"),
    );
    let before = tokio::time::Instant::now();
    let answer = bucket.exchange("small").await;
    assert_eq!(answer.body, vec![7; 300]);
    assert!(
        before.elapsed() >= Duration::from_millis(250),
        "{:?}",
        before.elapsed()
    );
    bucket
        .server
        .faults()
        .add(Rule::new(Fault::Delay(Duration::from_millis(100))).key("k"));
    let before = tokio::time::Instant::now();
    assert_eq!(bucket.exchange("k").await.body.len(), SIZE);
    assert!(before.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_held_answer_is_the_one_from_before() {
    let bucket = open().await;
    let barrier = Barrier::new();
    bucket
        .server
        .faults()
        .add(Rule::new(Fault::HoldUntil(barrier.clone())).times(2));
    let (first, second) = (bucket.ask("k").await, bucket.ask("k").await);
    bounded(barrier.arrived(2)).await;
    bucket
        .server
        .store()
        .put(BUCKET, "k", "new", Meta::default())
        .await
        .unwrap();
    assert_eq!(bucket.exchange("k").await.body, b"new");
    barrier.release_one();
    barrier.release_one();
    assert_eq!(read(first).await.body, body());
    assert_eq!(read(second).await.body, body());
}

#[tokio::test]
async fn a_body_can_be_held_in_the_middle() {
    let bucket = open().await;
    let (early, late) = (Barrier::new(), Barrier::new());
    bucket
        .server
        .faults()
        .add(Rule::new(Fault::HoldBodyUntil(200_000, late.clone())));
    bucket
        .server
        .faults()
        .add(Rule::new(Fault::HoldBodyUntil(0, early.clone())));
    let mut socket = bucket.ask("k").await;
    read_head(&mut socket).await;
    bounded(early.arrived(1)).await;
    early.release();
    let mut start = vec![0; 200_000];
    bounded(socket.read_exact(&mut start)).await.unwrap();
    bounded(late.arrived(1)).await;
    late.release();
    let mut rest = Vec::new();
    bounded(socket.read_to_end(&mut rest)).await.unwrap();
    assert_eq!([start, rest].concat(), body());
}

#[tokio::test]
async fn scripts_set_faults_over_http() {
    let bucket = TestBucket::with(|options| options.control = true).await;
    let ask = async |method: &str, path: &str, body: &str| {
        let mut socket = TcpStream::connect(bucket.server.address()).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: b\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let answer = read(socket).await;
        (answer.status(), String::from_utf8(answer.body).unwrap())
    };
    let rules = r#"[{"key": "k", "count": 1, "fault": "slow_down"}, {"fault": {"delay_ms": 1}}]"#;
    assert_eq!(ask("PUT", "/__faults", rules).await.0, 200);
    assert_eq!(ask("PUT", "/__faults", r#"[{"fault": "no such"}]"#).await.0, 400);
    assert_eq!(ask("POST", "/__faults", "").await.0, 405);
    assert_eq!(bucket.server.faults().list().len(), 2);
    assert_eq!(bucket.exchange("k").await.status(), 503);
    assert_eq!(bucket.exchange("k").await.status(), 403);
    let list: serde_json::Value = serde_json::from_str(&ask("GET", "/__faults", "").await.1).unwrap();
    assert_eq!(
        (&list[0]["hits"], &list[0]["rule"]["fault"]),
        (&1.into(), &"slow_down".into())
    );
    let log: serde_json::Value = serde_json::from_str(&ask("GET", "/__log", "").await.1).unwrap();
    assert_eq!((&log[0]["status"], &log[1]["status"]), (&503.into(), &403.into()));
    let many = format!("[{}]", vec![r#"{"fault": "garbage"}"#; 1000].join(","));
    assert_eq!(ask("PUT", "/__faults", &many).await.0, 507);
    assert_eq!(ask("DELETE", "/__faults", "").await.0, 200);
    assert!(bucket.server.faults().list().is_empty());
    // Without the option there is no such surface.
    let closed = TestBucket::start().await;
    let mut socket = TcpStream::connect(closed.server.address()).await.unwrap();
    socket
        .write_all(b"GET /__faults HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read(socket).await.status(), 400);
}

async fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(bounded(socket.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
