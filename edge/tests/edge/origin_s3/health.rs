//! Breaker, canary and failover.

use std::time::Duration;

use edge::config;
use edge::origin::{BreakerState, Kind};
use origin_sync::bucket::{Fault, Rule};

use super::lab::{Edge, Embedded, Place, drain, once, suited, thrice};

fn refuse(code: &str) -> Rule {
    Rule::new(Fault::Status(403, code.to_owned()))
}

fn fail() -> Rule {
    Rule::new(Fault::Status(500, "InternalError".to_owned()))
}

fn two(first: &Embedded, second: &Embedded, timeouts: config::OriginTimeouts) -> Edge {
    Edge::with(
        vec![first.place.config(), second.place.config()],
        first.place.credentials(),
        timeouts,
    )
}

/// Waits, with a bound, until the breaker of the first bucket stands like this.
async fn until_breaker(edge: &Edge, state: BreakerState) {
    let wait = async {
        while edge.origin.status()[0].breaker != state {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
}

#[tokio::test]
async fn who_may_not_list_sees_a_403_for_a_missing_key_and_the_client_a_404() {
    let embedded = Embedded::with(|options| options.list_allowed = false).await;
    embedded.place.put("health", "ok").await;
    embedded.place.put("w.js", "1").await;

    let mut with_canary = embedded.place.config();
    with_canary.canary = Some("health".to_owned());
    let edge = Edge::with(vec![with_canary], embedded.place.credentials(), once());
    embedded.server.clear_log();
    assert_eq!(edge.get("/missing-1").await.unwrap().status.as_u16(), 404);
    assert_eq!(edge.get("/missing-2").await.unwrap().status.as_u16(), 404);
    let looks = embedded
        .server
        .log()
        .iter()
        .filter(|seen| seen.key == "health")
        .count();
    assert_eq!(looks, 1, "what a look showed is remembered");

    // Without one, whatever was readable last will do.
    let edge = Edge::of(&embedded.place, once());
    let error = edge.get("/missing").await.unwrap_err();
    assert_eq!(error.kind, Kind::Forbidden, "nothing is known yet");
    assert!(error.detail.contains("canary"), "{error}");
    edge.body("/w.js").await.unwrap();
    assert_eq!(edge.get("/missing").await.unwrap().status.as_u16(), 404);
}

#[tokio::test]
async fn scanning_for_missing_keys_does_not_open_the_breaker() {
    let embedded = Embedded::with(|options| options.list_allowed = false).await;
    embedded.place.put("w.js", "1").await;
    let edge = Edge::of(&embedded.place, once());
    for n in 0..30 {
        assert_eq!(
            edge.get(&format!("/scan-{n}")).await.unwrap_err().kind,
            Kind::Forbidden
        );
    }
    assert_eq!(edge.body("/w.js").await.unwrap(), b"1");
}

#[tokio::test]
async fn credentials_that_are_lost_do_not_turn_what_is_stored_into_a_404() {
    let embedded = Embedded::start().await;
    for key in ["w.js", "v.js"] {
        embedded.place.put(key, "1").await;
    }
    let edge = Edge::of(&embedded.place, once());
    edge.body("/v.js").await.unwrap();
    let stored = edge.get("/w.js").await.unwrap();
    embedded.server.faults().add(refuse("AccessDenied"));
    // The sight of an object is believed for a moment only.
    let wait = async {
        loop {
            match edge.revalidate("/w.js", &stored).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => return error,
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap();
    assert_eq!(error.kind, Kind::CredentialsRefused, "{error}");
}

#[tokio::test]
async fn credentials_that_are_wrong_are_an_error_and_not_a_404() {
    let embedded = Embedded::start().await;
    embedded.place.put("there.js", "1").await;
    let place = Place {
        secret: "wrong".to_owned(),
        ..embedded.place.clone()
    };
    let edge = Edge::of(&place, once());
    for path in ["/there.js", "/missing.js"] {
        assert_eq!(
            edge.get(path).await.unwrap_err().kind,
            Kind::CredentialsRefused,
            "{path}"
        );
    }
    assert!(edge.counts("edge_origin_errors_total{error=\"credentials_refused\"} 2"));
}

#[tokio::test]
async fn anonymous_requests_read_what_is_public() {
    let embedded = Embedded::with(|options| options.anonymous_read = true).await;
    embedded.place.put("w.js", "1").await;
    let edge = Edge::with(
        vec![embedded.place.config()],
        config::Credentials::Anonymous,
        once(),
    );
    assert_eq!(edge.body("/w.js").await.unwrap(), b"1");
}

#[tokio::test]
async fn a_prefix_stands_before_every_key() {
    let embedded = Embedded::start().await;
    embedded.place.put("cdn/w.js", "1").await;
    embedded.place.put("secret.js", "2").await;
    let bucket = config::Bucket {
        prefix: "cdn/".to_owned(),
        ..embedded.place.config()
    };
    let edge = Edge::with(vec![bucket], embedded.place.credentials(), once());
    assert_eq!(edge.body("/w.js").await.unwrap(), b"1");
    for path in ["/secret.js", "/../secret.js", "/%2e%2e/secret.js"] {
        assert_eq!(edge.get(path).await.unwrap().status.as_u16(), 404, "{path}");
    }
}

#[tokio::test]
async fn the_breaker_opens_then_nobody_waits_and_a_probe_closes_it() {
    let embedded = Embedded::start().await;
    embedded.place.put("w.js", "1").await;
    let edge = Edge::of(&embedded.place, once());
    edge.body("/w.js").await.unwrap();
    embedded.server.faults().add(fail());
    for _ in 0..5 {
        assert_eq!(edge.get("/w.js").await.unwrap_err().kind, Kind::OriginStatus5xx);
    }
    assert_eq!(edge.origin.status()[0].breaker, BreakerState::Open);
    assert!(edge.counts("edge_origin_breaker_open 1"));
    let clients = |embedded: &Embedded| {
        embedded
            .server
            .log()
            .iter()
            .filter(|seen| seen.method == "GET")
            .count()
    };
    let before = clients(&embedded);
    for _ in 0..100 {
        let error = edge.get("/w.js").await.unwrap_err();
        assert_eq!(error.kind, Kind::BreakerOpen);
        assert!(
            error
                .retry_after
                .is_some_and(|pause| pause <= Duration::from_secs(6)),
            "{error:?}"
        );
    }
    assert_eq!(clients(&embedded), before, "no client's request finds out");

    embedded.server.faults().clear();
    until_breaker(&edge, BreakerState::Closed).await;
    assert_eq!(edge.body("/w.js").await.unwrap(), b"1");
    assert!(edge.counts("edge_origin_breaker_open 0"));
    let status = &edge.origin.status()[0];
    assert_eq!(status.last_error.as_ref().unwrap().1.kind, Kind::OriginStatus5xx);
    assert!(status.last_success.is_some());
}

#[tokio::test]
async fn nobody_listening_is_told_at_once() {
    let embedded = Embedded::start().await;
    let place = embedded.place.clone();
    embedded.server.stop().await;
    let edge = Edge::of(&place, once());
    assert_eq!(edge.get("/w.js").await.unwrap_err().kind, Kind::ConnectionRefused);
}

#[tokio::test]
async fn the_next_bucket_answers_while_the_first_is_down() {
    let (first, second) = (Embedded::start().await, Embedded::start().await);
    for bucket in [&first, &second] {
        bucket.place.put("w.js", "same").await;
    }
    first.place.put("new.js", "only here").await;
    let edge = two(&first, &second, thrice());
    let ids: Vec<_> = edge
        .origin
        .status()
        .iter()
        .map(|status| status.id.clone())
        .collect();
    assert_eq!(edge.get("/w.js").await.unwrap().source, ids[0]);
    for fault in [
        Fault::Status(500, "InternalError".to_owned()),
        Fault::SlowDown,
        Fault::ResetBeforeHeaders,
        Fault::HangBeforeHeaders,
        Fault::Status(403, "InvalidAccessKeyId".to_owned()),
        Fault::Redirect(301, "http://127.0.0.1:1/".to_owned()),
    ] {
        let name = format!("{fault:?}");
        let edge = two(&first, &second, suited(&fault, once()));
        first.server.faults().clear();
        first.server.faults().add(Rule::new(fault));
        let answer = edge.get("/w.js").await.unwrap();
        assert_eq!(answer.source, ids[1], "{name}");
        assert_eq!(drain(answer).await.unwrap(), b"same", "{name}");
    }

    // A replica that lacks it proves nothing.
    let error = edge.get("/new.js").await.unwrap_err();
    assert_eq!(error.kind, Kind::ReplicaMissing, "{error}");
    // The first one's 404 is the truth, and the second is not asked.
    first.server.faults().clear();
    second.server.clear_log();
    let edge = two(&first, &second, thrice());
    assert_eq!(edge.get("/nowhere.js").await.unwrap().status.as_u16(), 404);
    assert!(second.server.log().is_empty());
}

#[tokio::test]
async fn a_replica_that_lacks_it_sends_us_back_to_the_first() {
    let (first, second) = (Embedded::start().await, Embedded::start().await);
    first.place.put("new.js", "only here").await;
    let edge = two(&first, &second, thrice());
    first.server.faults().add(fail().times(1));
    assert_eq!(edge.body("/new.js").await.unwrap(), b"only here");
    first.server.faults().add(fail().times(1));
    assert_eq!(edge.get("/nowhere.js").await.unwrap().status.as_u16(), 404);
}

#[tokio::test]
async fn a_replica_that_lags_is_not_an_answer() {
    let (first, second) = (Embedded::start().await, Embedded::start().await);
    second.place.put("w.js", "old").await;
    first.place.put("w.js", "new").await;
    let edge = two(&first, &second, once());
    let mut stored = edge.get("/w.js").await.unwrap();
    first.server.faults().add(fail());
    let later = "Fri, 01 Jan 2100 00:00:00 GMT";
    stored.headers.insert("last-modified", later.parse().unwrap());
    assert_eq!(
        edge.revalidate("/w.js", &stored).await.unwrap_err().kind,
        Kind::ReplicaStale
    );
    assert!(
        second
            .server
            .log()
            .iter()
            .all(|seen| seen.if_none_match.is_none()),
        "it is not its condition"
    );
}

#[tokio::test]
async fn when_all_are_down_nothing_waits() {
    let (first, second) = (Embedded::start().await, Embedded::start().await);
    let edge = two(&first, &second, once());
    for bucket in [&first, &second] {
        bucket.server.faults().add(fail());
    }
    for _ in 0..5 {
        assert_eq!(edge.get("/w.js").await.unwrap_err().kind, Kind::OriginStatus5xx);
    }
    let error = edge.get("/w.js").await.unwrap_err();
    assert_eq!(error.kind, Kind::BreakerOpen);
    assert!(error.retry_after.is_some());
    assert!(edge.counts("edge_origin_breaker_open 2"));
}
