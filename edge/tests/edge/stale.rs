//! What is served when the stored response is stale: while it is revalidated, and while the origin fails.

use std::time::Duration;

use origin_sync::bucket::{Barrier, Fault, Rule};

use crate::client::Answer;
use crate::support::{TestBucket, TestEdge, all};

/// No second chances, so that a failure costs no pause.
const ONE_ATTEMPT: &str = "[origin.assets.timeouts]\nattempts = 1\nconnect = \"60s\"\nattempt = \"60s\"\nread = \"60s\"\noperation = \"120s\"\n";

/// The same for an origin that hangs before it answers.
const HASTY: &str = "[origin.assets.timeouts]\nattempts = 1\nconnect = \"20s\"\nattempt = \"5s\"\nread = \"5s\"\noperation = \"20s\"\n";

/// The same for one that stops within a body.
const HASTY_WITHIN: &str = "[origin.assets.timeouts]\nattempts = 1\nconnect = \"20s\"\nattempt = \"20s\"\nread = \"3s\"\noperation = \"60s\"\n";

/// The deadlines that show what `fault` does.
fn suited(fault: &Fault) -> &'static str {
    match fault {
        Fault::HangBeforeHeaders => HASTY,
        Fault::StallAfter(_) => HASTY_WITHIN,
        _ => ONE_ATTEMPT,
    }
}

const FOREGROUND: &str = "stale_while_revalidate = \"0s\"";

fn status(answer: &Answer) -> &str {
    answer
        .field("cache-status")
        .unwrap_or_else(|| panic!("no Cache-Status in {}", answer.head))
}

/// A node with `a.js` stored and stale by one second.
async fn with_a_stale_script(bucket: &TestBucket, site: &str) -> TestEdge {
    with_a_stale_script_and(bucket, site, ONE_ATTEMPT).await
}

/// The same with these deadlines.
async fn with_a_stale_script_and(bucket: &TestBucket, site: &str, deadlines: &str) -> TestEdge {
    bucket.put("a.js", "old", "max-age=60").await;
    let edge = TestEdge::start_with(bucket, site, deadlines, |_| {}).await;
    assert_eq!(edge.get("/a.js", &[]).await.text(), "old");
    edge.advance(bucket, Duration::from_secs(61));
    edge
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_response_is_served_at_once_while_one_fetch_runs_behind() {
    let bucket = TestBucket::start().await;
    let edge = with_a_stale_script(&bucket, "").await;
    bucket.put("a.js", "new", "max-age=60").await;
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldUntil(barrier.clone())).key("a.js"));
    let answers = all((0..20).map(|_| edge.get("/a.js", &[])).collect()).await;
    for answer in &answers {
        assert_eq!(answer.text(), "old");
        assert_eq!(
            status(answer),
            "portico; hit; ttl=-1; detail=stale-while-revalidate"
        );
        assert_eq!(answer.field("age"), Some("61"));
    }
    bucket.until_asked("a.js", 2).await;
    barrier.release();
    edge.until("the new one", || edge.exchange().cache().flights.is_empty())
        .await;
    let answer = edge.get("/a.js", &[]).await;
    assert_eq!((answer.text(), status(&answer)), ("new", "portico; hit; ttl=60"));
    assert_eq!(bucket.asked("a.js").len(), 2);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_fail_is_answered_stale_and_named() {
    let bucket = TestBucket::start().await;
    for (fault, reason) in [
        (Fault::Status(500, "InternalError".into()), "origin_status_5xx"),
        (Fault::SlowDown, "slow_down"),
        (
            Fault::Status(403, "InvalidAccessKeyId".into()),
            "credentials_refused",
        ),
        (
            Fault::Status(403, "RequestTimeTooSkewed".into()),
            "credentials_refused",
        ),
        (Fault::Status(400, "ExpiredToken".into()), "credentials_refused"),
        (
            Fault::Status(404, "NoSuchBucket".into()),
            "proxy_configuration_error",
        ),
        (
            Fault::Redirect(301, "http://169.254.169.254/".into()),
            "redirect_refused",
        ),
        (
            Fault::Redirect(307, "http://127.0.0.1:1/".into()),
            "redirect_refused",
        ),
        (Fault::ResetBeforeHeaders, "connection_terminated"),
        (Fault::Garbage, "http_protocol_error"),
        (Fault::HangBeforeHeaders, "http_response_timeout"),
        (Fault::StaleRange, "http_protocol_error"),
    ] {
        bucket.faults().clear();
        let edge = with_a_stale_script_and(&bucket, FOREGROUND, suited(&fault)).await;
        bucket.put("a.js", "new", "max-age=60").await;
        let name = format!("{fault:?}");
        bucket.fault(Rule::new(fault).key("a.js"));
        let answer = edge.get("/a.js", &[]).await;
        assert_eq!((answer.status, answer.text()), (200, "old"), "{name}");
        assert_eq!(
            status(&answer),
            format!("portico; fwd=stale; detail={reason}"),
            "{name}"
        );
        assert_eq!(answer.field("age"), Some("61"), "{name}");
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_body_that_breaks_leaves_the_old_one_in_place() {
    let bucket = TestBucket::start().await;
    for fault in [
        Fault::TruncateAfter(100),
        Fault::ResetAfter(100),
        Fault::FlipByte(3),
        Fault::StallAfter(100),
    ] {
        bucket.faults().clear();
        let edge = with_a_stale_script_and(&bucket, FOREGROUND, suited(&fault)).await;
        bucket.put("a.js", "n".repeat(2000), "max-age=60").await;
        let name = format!("{fault:?}");
        bucket.fault(Rule::new(fault).key("a.js"));
        let answer = edge.get("/a.js", &[]).await;
        assert_eq!((answer.status, answer.text()), (200, "old"), "{name}");
        assert_eq!(
            status(&answer),
            "portico; fwd=stale; detail=http_response_incomplete",
            "{name}"
        );
        bucket.faults().clear();
        let again = || async { edge.get("/a.js", &[]).await.text().len() == 2000 };
        let recovered = async { while !again().await {} };
        crate::client::soon("the new one", recovered).await;
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listening_is_answered_stale() {
    let bucket = TestBucket::start().await;
    let edge = with_a_stale_script(&bucket, FOREGROUND).await;
    bucket.stop().await;
    let answer = edge.get("/a.js", &[]).await;
    assert_eq!((answer.status, answer.text()), (200, "old"));
    assert!(
        status(&answer).starts_with("portico; fwd=stale; detail=connection_"),
        "{}",
        status(&answer)
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_hangs_costs_one_client_a_bounded_wait_and_the_others_none() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "old", "max-age=60").await;
    let edge = TestEdge::start_with(&bucket, FOREGROUND, "[cache]\nstale_after = \"1s\"", |_| {}).await;
    edge.get("/a.js", &[]).await;
    edge.advance(&bucket, Duration::from_secs(61));
    bucket.fault(Rule::new(Fault::HangBeforeHeaders).key("a.js"));
    let first = edge.get("/a.js", &[]).await;
    assert_eq!(
        (first.text(), status(&first)),
        ("old", "portico; fwd=stale; detail=http_response_timeout")
    );
    // The fetch goes on for seconds. Were each to wait for it, this would take as many.
    let others = async {
        for _ in 0..50 {
            let answer = edge.get("/a.js", &[]).await;
            assert_eq!(answer.text(), "old");
            assert!(
                status(&answer).contains("; detail=http_response_timeout"),
                "{}",
                status(&answer)
            );
        }
    };
    crate::client::soon("stale answers without a wait", others).await;
    assert_eq!(bucket.asked("a.js").len(), 2);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_cached_is_served_for_a_day_while_no_bucket_answers() {
    let bucket = TestBucket::start().await;
    for (key, cache_control) in [
        ("silent.js", ""),
        ("short.js", "max-age=1"),
        ("long.js", "public, max-age=600"),
    ] {
        bucket.put(key, key, cache_control).await;
    }
    bucket.put("s.js", "s.js", "must-revalidate, max-age=1").await;
    let edge = TestEdge::start_with(&bucket, "ttl_default = \"60s\"", ONE_ATTEMPT, |_| {}).await;
    for key in ["silent.js", "short.js", "long.js", "s.js"] {
        assert_eq!(edge.get(&format!("/{key}"), &[]).await.text(), key);
    }
    bucket.stop().await;
    edge.clock.advance(Duration::from_secs(23 * 3600));
    for _ in 0..20 {
        for key in ["silent.js", "short.js", "long.js"] {
            let answer = edge.get(&format!("/{key}"), &[]).await;
            assert_eq!((answer.status, answer.text()), (200, key));
            assert!(
                status(&answer).starts_with("portico; fwd=stale; "),
                "{}",
                status(&answer)
            );
        }
    }
    assert!(
        (500..600).contains(&edge.get("/s.js", &[]).await.status),
        "must-revalidate is obeyed"
    );
    assert!((500..600).contains(&edge.get("/never.js", &[]).await.status));
    edge.clock.advance(Duration::from_secs(2 * 3600));
    let over = edge.get("/short.js", &[]).await;
    assert!((500..600).contains(&over.status), "{}", over.head);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_anything_stale_a_failure_says_when_to_come_back() {
    let bucket = TestBucket::start().await;
    for (fault, expected) in [
        (Fault::Status(500, "InternalError".into()), 502),
        (Fault::SlowDown, 503),
        (Fault::HangBeforeHeaders, 504),
        (Fault::Status(403, "InvalidAccessKeyId".into()), 502),
        (Fault::Redirect(302, "http://127.0.0.1:1/".into()), 502),
    ] {
        bucket.faults().clear();
        let edge = TestEdge::start_with(&bucket, "", suited(&fault), |_| {}).await;
        let name = format!("{fault:?}");
        bucket.fault(Rule::new(fault).key("a.js"));
        let answer = edge.get("/a.js", &[]).await;
        assert_eq!(answer.status, expected, "{name}");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{name}");
        assert!(answer.field("retry-after").is_some(), "{name}");
        assert_eq!(
            answer.field("content-type"),
            Some("text/javascript; charset=utf-8"),
            "{name}"
        );
        assert!(
            status(&answer).starts_with("portico; fwd=uri-miss; detail="),
            "{}",
            status(&answer)
        );
        assert_eq!(edge.exchange().cache().memory.entries(), 0);
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_site_serves_nothing_stale_that_was_not_allowed() {
    let bucket = TestBucket::start().await;
    let edge = with_a_stale_script(&bucket, "strict = true").await;
    bucket.put("b.js", "b", "max-age=60, stale-if-error=600").await;
    edge.get("/b.js", &[]).await;
    bucket.fault(Rule::new(Fault::Status(500, "InternalError".into())));
    let refused = edge.get("/a.js", &[]).await;
    assert_eq!(
        (refused.status, status(&refused)),
        (502, "portico; fwd=stale; detail=origin_status_5xx")
    );
    edge.advance(&bucket, Duration::from_secs(100));
    assert_eq!(edge.get("/b.js", &[]).await.text(), "b", "its own word allows it");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_its_window_a_stale_response_is_not_served() {
    let bucket = TestBucket::start().await;
    let edge = with_a_stale_script(
        &bucket,
        "stale_while_revalidate = \"0s\"\nstale_if_error = \"100s\"",
    )
    .await;
    bucket.fault(Rule::new(Fault::Status(500, "InternalError".into())));
    edge.advance(&bucket, Duration::from_secs(90));
    assert_eq!(edge.get("/a.js", &[]).await.status, 200);
    edge.advance(&bucket, Duration::from_secs(20));
    let over = edge.get("/a.js", &[]).await;
    assert_eq!(
        (over.status, over.field("cache-control")),
        (502, Some("no-store"))
    );
    assert!(over.field("retry-after").is_some());
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_held_so_that_a_broken_origin_is_not_asked_by_each_client() {
    let bucket = TestBucket::start().await;
    let edge = with_a_stale_script(&bucket, FOREGROUND).await;
    bucket.fault(Rule::new(Fault::Status(500, "InternalError".into())));
    let began = tokio::time::Instant::now();
    let (stale, cold): (Vec<_>, Vec<_>) = (0..100)
        .map(|_| (edge.get("/a.js", &[]), edge.get("/cold.js", &[])))
        .unzip();
    let (stale, cold) = tokio::join!(all(stale), all(cold));
    assert!(stale.iter().all(|answer| answer.status == 200));
    assert!(cold.iter().all(|answer| answer.status == 502));
    // It is held for half a second each time.
    let failures = 2 + usize::try_from(began.elapsed().as_millis() / 500).unwrap();
    assert!(failures < 100, "too slow a machine to show anything");
    assert!(
        bucket.asked("a.js").len() <= 1 + failures,
        "besides the one that filled"
    );
    assert!(bucket.asked("cold.js").len() <= failures);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_comes_back_is_used_again() {
    let bucket = TestBucket::start().await;
    let edge = with_a_stale_script(&bucket, FOREGROUND).await;
    bucket.put("a.js", "new", "max-age=60").await;
    let rule = bucket.fault(Rule::new(Fault::Status(500, "InternalError".into())));
    assert_eq!(edge.get("/a.js", &[]).await.text(), "old");
    assert!(bucket.faults().remove(rule));
    let recovered = async { while edge.get("/a.js", &[]).await.text() != "new" {} };
    crate::client::soon("the new one", recovered).await;
    edge.stop().await;
}
