//! A bucket that breaks, lies and stalls: what comes is whole and right, or it is an error in time.

use std::sync::Arc;
use std::time::Duration;

use edge::config;
use edge::origin::{AskedRange, BreakerState, Kind};
use origin_sync::bucket::{Fault, Rule};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::lab::{Edge, Embedded, drain, hasty, noise, once, suited, thrice};

const LENGTH: usize = 300_000;

/// A bucket with one object.
async fn bucket() -> (Embedded, Vec<u8>) {
    let embedded = Embedded::start().await;
    let content = noise(LENGTH);
    embedded.place.put("w.js", content.clone()).await;
    embedded.server.clear_log();
    (embedded, content)
}

fn break_always(embedded: &Embedded, fault: Fault) {
    embedded.server.faults().clear();
    embedded.server.faults().add(Rule::new(fault).key("w.js"));
}

#[tokio::test]
async fn a_fault_before_the_body_has_its_own_name() {
    let (embedded, _) = bucket().await;
    for (fault, expected) in [
        (Fault::SlowDown, Kind::SlowDown),
        (
            Fault::Status(503, "ServiceUnavailable".to_owned()),
            Kind::OriginStatus5xx,
        ),
        (
            Fault::Status(500, "InternalError".to_owned()),
            Kind::OriginStatus5xx,
        ),
        (
            Fault::Status(400, "ExpiredToken".to_owned()),
            Kind::CredentialsRefused,
        ),
        (
            Fault::Status(403, "RequestTimeTooSkewed".to_owned()),
            Kind::CredentialsRefused,
        ),
        (
            Fault::Status(403, "InvalidAccessKeyId".to_owned()),
            Kind::CredentialsRefused,
        ),
        (
            Fault::Status(404, "NoSuchBucket".to_owned()),
            Kind::ProxyConfigurationError,
        ),
        (Fault::Unasked304, Kind::HttpProtocolError),
        (Fault::StaleRange, Kind::HttpProtocolError),
        (Fault::Garbage, Kind::HttpProtocolError),
        (Fault::HugeHeaders(1 << 20), Kind::HttpProtocolError),
        (Fault::ResetBeforeHeaders, Kind::ConnectionTerminated),
        (Fault::HangBeforeHeaders, Kind::HttpResponseTimeout),
    ] {
        let name = format!("{fault:?}");
        // A new one each time, as a breaker would open on so much misery.
        let edge = Edge::of(&embedded.place, suited(&fault, once()));
        break_always(&embedded, fault);
        assert_eq!(
            edge.get("/w.js")
                .await
                .map(|answer| answer.status)
                .unwrap_err()
                .kind,
            expected,
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_moment_of_weakness_is_retried() {
    let (embedded, content) = bucket().await;
    let edge = Edge::of(&embedded.place, thrice());
    embedded
        .server
        .faults()
        .add(Rule::new(Fault::Status(500, "InternalError".to_owned())).times(2));
    assert!(edge.body("/w.js").await.unwrap() == content);
    assert_eq!(embedded.server.log().len(), 3);
    assert!(edge.counts("edge_origin_retries_total 2"));
    assert!(edge.counts("edge_origin_errors_total{error=\"origin_status_5xx\"} 2"));
}

#[tokio::test]
async fn the_pause_that_the_bucket_asks_for_is_kept() {
    let (embedded, content) = bucket().await;
    let edge = Edge::of(&embedded.place, thrice());
    embedded.server.faults().add(Rule::new(Fault::SlowDown).times(1));
    let began = Instant::now();
    assert!(edge.body("/w.js").await.unwrap() == content);
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let (embedded, _) = bucket().await;
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("http://{}/latest/meta-data/", trap.local_addr().unwrap());
    for status in [301, 302, 307, 308] {
        let edge = Edge::of(&embedded.place, thrice());
        break_always(&embedded, Fault::Redirect(status, location.clone()));
        embedded.server.clear_log();
        assert_eq!(
            edge.get("/w.js").await.unwrap_err().kind,
            Kind::RedirectRefused,
            "{status}"
        );
        assert_eq!(embedded.server.log().len(), 1, "it is not retried either");
    }
    let nobody = tokio::time::timeout(Duration::from_millis(50), trap.accept()).await;
    assert!(nobody.is_err(), "somebody followed");
}

#[tokio::test]
async fn a_bucket_that_hangs_costs_its_deadlines_and_no_more() {
    let (embedded, _) = bucket().await;
    let edge = Edge::of(&embedded.place, hasty(once()));
    break_always(&embedded, Fault::HangBeforeHeaders);
    let began = Instant::now();
    assert_eq!(
        edge.get("/w.js").await.unwrap_err().kind,
        Kind::HttpResponseTimeout
    );
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(6) && took < Duration::from_secs(20),
        "{took:?}"
    );
}

#[tokio::test]
async fn a_body_that_breaks_is_taken_up_where_it_broke() {
    for (fault, needs_range) in [
        (Fault::TruncateAfter(100_000), true),
        (Fault::ResetAfter(100_000), true),
        (Fault::StallAfter(100_000), true),
        (Fault::TruncateAfter(0), false),
    ] {
        let (embedded, content) = bucket().await;
        let edge = Edge::of(&embedded.place, suited(&fault, thrice()));
        let name = format!("{fault:?}");
        embedded.server.faults().add(Rule::new(fault).times(1));
        assert_eq!(
            edge.body("/w.js").await.map(|body| body == content),
            Ok(true),
            "{name}"
        );
        let log = embedded.server.log();
        assert_eq!(log.len(), 2, "{name}");
        assert!(log[1].if_match.is_some(), "{name}");
        assert_eq!(log[1].range.is_some(), needs_range, "{name}: {:?}", log[1].range);
        assert!(edge.counts("edge_origin_resumes_total 1"), "{name}");
    }
}

#[tokio::test]
async fn a_range_that_breaks_is_taken_up_within_itself() {
    let (embedded, content) = bucket().await;
    let edge = Edge::of(&embedded.place, thrice());
    embedded
        .server
        .faults()
        .add(Rule::new(Fault::TruncateAfter(50_000)).times(1));
    let range = AskedRange::From {
        first: 1_000,
        last: Some(200_999),
    };
    let answer = edge.range("/w.js", range).await.unwrap();
    assert!(drain(answer).await.unwrap() == content[1_000..201_000]);
    let resumed = embedded.server.log()[1].range.clone().unwrap();
    assert!(
        resumed.ends_with("-200999") && !resumed.contains("=1000-"),
        "{resumed}"
    );
}

#[tokio::test]
async fn a_body_that_always_breaks_is_an_error() {
    let (embedded, _) = bucket().await;
    for (fault, expected) in [
        (
            Fault::TruncateAfter(100),
            &[Kind::HttpResponseIncomplete, Kind::ConnectionTerminated][..],
        ),
        (Fault::ResetAfter(100), &[Kind::ConnectionTerminated]),
        (Fault::StallAfter(100), &[Kind::ConnectionReadTimeout]),
        (
            Fault::Drip {
                bytes_per_second: 2_000,
            },
            &[Kind::ConnectionReadTimeout],
        ),
        // The first byte is wrong in the rest as well, and then it is too late.
        (Fault::FlipByte(0), &[Kind::ChecksumMismatch]),
        (
            Fault::WrongLength(-7),
            &[Kind::ChecksumMismatch, Kind::HttpProtocolError],
        ),
        (
            Fault::WrongLength(7),
            &[
                Kind::RangeRefused,
                Kind::ConnectionTerminated,
                Kind::HttpResponseIncomplete,
            ],
        ),
    ] {
        let name = format!("{fault:?}");
        let edge = Edge::of(&embedded.place, suited(&fault, thrice()));
        break_always(&embedded, fault);
        let began = Instant::now();
        let kind = edge.body("/w.js").await.map(|body| body.len()).unwrap_err();
        assert!(expected.contains(&kind), "{name}: {kind:?}");
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{name} took {:?}",
            began.elapsed()
        );
    }
}

#[tokio::test]
async fn a_small_body_with_a_wrong_byte_is_fetched_again_before_anyone_sees_it() {
    let embedded = Embedded::start().await;
    embedded.place.put("tenant.json", "{\"tenant\":1}").await;
    let edge = Edge::of(&embedded.place, thrice());
    embedded
        .server
        .faults()
        .add(Rule::new(Fault::FlipByte(3)).times(1));
    assert_eq!(edge.body("/tenant.json").await.unwrap(), b"{\"tenant\":1}");
    assert!(edge.counts("edge_origin_errors_total{error=\"checksum_mismatch\"} 1"));
    embedded.server.faults().add(Rule::new(Fault::FlipByte(3)));
    assert_eq!(
        edge.body("/tenant.json").await.unwrap_err(),
        Kind::ChecksumMismatch
    );
}

#[tokio::test]
async fn an_object_that_changes_on_the_way_is_never_mixed() {
    let (embedded, _) = bucket().await;
    let edge = Edge::of(&embedded.place, thrice());
    embedded
        .server
        .faults()
        .add(Rule::new(Fault::TruncateAfter(100_000)).times(1));
    let answer = edge.get("/w.js").await.unwrap();
    embedded.place.put("w.js", vec![0; LENGTH]).await;
    assert_eq!(
        drain(answer).await.map(|body| body.len()).unwrap_err(),
        Kind::ObjectChanged
    );
}

#[tokio::test]
async fn more_requests_than_may_wait_are_refused_at_once() {
    const WAITING_MAX: usize = 256;
    let (embedded, _) = bucket().await;
    let timeouts = config::OriginTimeouts {
        attempt: Duration::from_secs(60),
        ..once()
    };
    let edge = Arc::new(Edge::of(&embedded.place, timeouts));
    break_always(&embedded, Fault::HangBeforeHeaders);
    let mut waiting = JoinSet::new();
    for count in 1..=WAITING_MAX {
        let edge = Arc::clone(&edge);
        waiting.spawn(async move { edge.get("/w.js").await.map(drop) });
        let seen = embedded.server.until_seen(|seen| seen.len() >= count);
        tokio::time::timeout(Duration::from_secs(30), seen).await.unwrap();
    }
    assert_eq!(
        edge.get("/w.js").await.unwrap_err().kind,
        Kind::ConnectionLimitReached
    );
    assert_eq!(
        edge.origin.status()[0].breaker,
        BreakerState::Closed,
        "it says nothing about the bucket"
    );
    // Those that give up make room.
    waiting.shutdown().await;
    embedded.server.faults().clear();
    assert_eq!(edge.body("/w.js").await.unwrap().len(), LENGTH);
}
