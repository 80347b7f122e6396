//! Purges: what is found afterwards, and what is not.

use std::time::Duration;

use edge::cache::epoch::{Prefix, Purge, Url};
use edge::cache::tag::Tag;
use origin_sync::bucket::{Barrier, Fault, Meta, Rule};

use crate::client::Answer;
use crate::support::{HOST, TestBucket, TestEdge, request};

fn by_url(path: &str) -> Purge {
    let url = Url {
        host: HOST.into(),
        path: path.into(),
        query: None,
    };
    Purge {
        urls: vec![url],
        ..Purge::default()
    }
}

fn by_tag(tag: &str) -> Purge {
    Purge {
        tags: vec![Tag::new(tag).unwrap()],
        ..Purge::default()
    }
}

fn by_prefix(path: &str) -> Purge {
    Purge {
        prefixes: vec![Prefix {
            host: HOST.into(),
            path: path.into(),
        }],
        ..Purge::default()
    }
}

fn by_host(host: &str) -> Purge {
    Purge {
        hosts: vec![host.into()],
        ..Purge::default()
    }
}

fn everything() -> Purge {
    Purge {
        everything: true,
        ..Purge::default()
    }
}

fn softly(purge: Purge) -> Purge {
    Purge { soft: true, ..purge }
}

fn status(answer: &Answer) -> &str {
    answer.field("cache-status").unwrap()
}

const PATHS: [&str; 4] = ["/client/a.js", "/client/b.js", "/clients.js", "/lock/c.js"];

/// A node with four objects stored: the first two tagged `widget`, the last `lock` and `all`.
async fn filled(bucket: &TestBucket, site: &str) -> TestEdge {
    for path in PATHS {
        let tags = if path.starts_with("/client/") {
            "widget"
        } else if path.starts_with("/lock") {
            "lock, all"
        } else {
            ""
        };
        let user = if tags.is_empty() {
            Vec::new()
        } else {
            vec![("cache-tag".to_owned(), tags.to_owned())]
        };
        let meta = Meta {
            cache_control: Some("max-age=600".into()),
            user: user.into_iter().collect(),
            ..Meta::default()
        };
        bucket.put_with(&path[1..], "x".repeat(1000), meta).await;
    }
    let edge = TestEdge::start(bucket, site).await;
    for path in PATHS {
        edge.get(path, &[]).await;
    }
    edge
}

/// Which of the four are still found.
async fn found(edge: &TestEdge) -> Vec<&'static str> {
    let mut found = Vec::new();
    for path in PATHS {
        if edge
            .get(path, &[("cache-control", "only-if-cached")])
            .await
            .status
            == 200
        {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_takes_what_it_names_and_nothing_else() {
    for (purge, left) in [
        (by_url("/client/a.js"), &PATHS[1..]),
        (by_url("/client/none.js"), &PATHS),
        (by_tag("widget"), &PATHS[2..]),
        (by_tag("all"), &PATHS[..3]),
        (by_tag("wid"), &PATHS),
        (by_tag("Widget"), &PATHS),
        (by_prefix("/client/"), &PATHS[2..]),
        (by_prefix("/client"), &PATHS[3..]),
        (by_prefix("/"), &[]),
        (by_host(HOST), &[]),
        (by_host("other.test"), &PATHS),
        (everything(), &[]),
    ] {
        let bucket = TestBucket::start().await;
        let edge = filled(&bucket, "").await;
        assert_eq!(found(&edge).await, PATHS);
        edge.purge(purge.clone());
        assert_eq!(found(&edge).await, left, "{purge:?}");
        // What is fetched after it is found again.
        for path in PATHS {
            edge.get(path, &[]).await;
        }
        assert_eq!(found(&edge).await, PATHS, "{purge:?}");
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_takes_every_coding_under_every_name_of_the_site() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "old ".repeat(1000), "max-age=600").await;
    let edge = TestEdge::start_with(&bucket, "", "", |config| {
        config.sites[0].hosts.push("alias.test".into())
    })
    .await;
    let codings = ["identity", "gzip", "br", "zstd"];
    for coding in codings {
        edge.get("/a.js", &[("accept-encoding", coding)]).await;
    }
    bucket.put("a.js", "new ".repeat(1000), "max-age=600").await;
    edge.purge(by_url("/a.js"));
    for host in [HOST, "alias.test"] {
        for coding in codings {
            let mut client = edge.client().await;
            let only = [("accept-encoding", coding), ("cache-control", "only-if-cached")];
            client
                .send(request("GET", "/a.js", &only).replace(HOST, host))
                .await;
            assert_eq!(client.answer().await.status, 504, "{host} {coding}");
        }
    }
    assert!(edge.get("/a.js", &[]).await.text().starts_with("new"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_purge_takes_every_query_of_the_path() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x", "max-age=600").await;
    let edge = TestEdge::start(&bucket, "query = \"keep\"").await;
    for query in ["", "?v=1", "?v=2"] {
        edge.get(&format!("/a.js{query}"), &[]).await;
    }
    let one = Url {
        host: HOST.into(),
        path: "/a.js".into(),
        query: Some("v=1".into()),
    };
    edge.purge(Purge {
        urls: vec![one],
        ..Purge::default()
    });
    let only = [("cache-control", "only-if-cached")];
    assert_eq!(edge.get("/a.js?v=1", &only).await.status, 504);
    assert_eq!(edge.get("/a.js?v=2", &only).await.status, 200);
    edge.purge(by_url("/a.js"));
    for query in ["", "?v=1", "?v=2"] {
        assert_eq!(
            edge.get(&format!("/a.js{query}"), &only).await.status,
            504,
            "{query}"
        );
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_is_not_served_even_when_the_origin_is_down() {
    let bucket = TestBucket::start().await;
    let edge = filled(&bucket, "").await;
    edge.purge(by_tag("widget"));
    bucket.stop().await;
    assert!((500..600).contains(&edge.get("/client/a.js", &[]).await.status));
    assert_eq!(edge.get("/lock/c.js", &[]).await.status, 200);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_purge_makes_stale_and_the_origin_is_asked_for_changes_alone() {
    let bucket = TestBucket::start().await;
    for purge in [
        by_url("/client/a.js"),
        by_tag("widget"),
        by_prefix("/client/"),
        by_host(HOST),
        everything(),
    ] {
        let edge = filled(&bucket, "stale_while_revalidate = \"0s\"").await;
        edge.purge(softly(purge.clone()));
        let confirmed = edge.get("/client/a.js", &[]).await;
        assert_eq!(
            status(&confirmed),
            "portico; fwd=stale; fwd-status=304; ttl=600; stored",
            "{purge:?}"
        );
        assert_eq!(
            status(&edge.get("/client/a.js", &[]).await),
            "portico; hit; ttl=600",
            "{purge:?}"
        );
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_softly_purged_is_served_while_it_is_revalidated_and_when_the_origin_fails() {
    let bucket = TestBucket::start().await;
    let edge = filled(&bucket, "").await;
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldUntil(barrier.clone())));
    edge.purge(softly(everything()));
    let stale = edge.get("/client/a.js", &[]).await;
    assert!(
        status(&stale).ends_with("detail=stale-while-revalidate"),
        "{}",
        status(&stale)
    );
    barrier.release();
    edge.until("the revalidation", || edge.exchange().cache().flights.is_empty())
        .await;
    assert_eq!(
        status(&edge.get("/client/a.js", &[]).await),
        "portico; hit; ttl=600"
    );
    edge.stop().await;

    let edge = filled(&bucket, "stale_while_revalidate = \"0s\"").await;
    bucket.stop().await;
    edge.purge(softly(everything()));
    let kept = edge.get("/client/a.js", &[]).await;
    assert_eq!(kept.status, 200);
    assert!(
        status(&kept).starts_with("portico; fwd=stale; detail="),
        "{}",
        status(&kept)
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_purge_after_a_soft_one_wins_and_so_does_one_before_it() {
    let bucket = TestBucket::start().await;
    let edge = filled(&bucket, "").await;
    edge.purge(softly(everything()));
    edge.purge(by_url("/client/a.js"));
    edge.purge(softly(everything()));
    assert_eq!(found(&edge).await, PATHS[1..]);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_object_can_be_purged_too() {
    let bucket = TestBucket::start().await;
    let edge = TestEdge::start(&bucket, "").await;
    assert_eq!(edge.get("/late.js", &[]).await.status, 404);
    bucket.put("late.js", "now", "max-age=60").await;
    assert_eq!(edge.get("/late.js", &[]).await.status, 404);
    edge.purge(by_url("/late.js"));
    assert_eq!(edge.get("/late.js", &[]).await.text(), "now");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_that_a_purge_overtook_does_not_bring_the_old_body_back() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "old", "max-age=60").await;
    let edge = TestEdge::start(&bucket, "stale_while_revalidate = \"0s\"").await;
    edge.get("/a.js", &[]).await;
    edge.advance(&bucket, Duration::from_secs(61));
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldUntil(barrier.clone())).times(1));
    let mut before = edge.client().await;
    before.send(request("GET", "/a.js", &[])).await;
    barrier.arrived(1).await;
    bucket.put("a.js", "new", "max-age=60").await;
    edge.purge(by_url("/a.js"));
    barrier.release();
    before.answer().await;
    assert_eq!(edge.get("/a.js", &[]).await.text(), "new");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_made_across_a_purge_is_not_found_after_it() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "old ".repeat(100_000), "max-age=60").await;
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldBodyUntil(200_000, barrier.clone())).times(1));
    let edge = TestEdge::start(&bucket, "").await;
    let mut before = edge.client().await;
    before
        .send(request("GET", "/a.js", &[("accept-encoding", "br")]))
        .await;
    barrier.arrived(1).await;
    bucket.put("a.js", "new ".repeat(100_000), "max-age=60").await;
    edge.purge(everything());
    barrier.release();
    before.answer().await;
    for coding in ["identity", "br"] {
        let answer = edge
            .get("/a.js", &[("accept-encoding", coding), ("range", "bytes=0-2")])
            .await;
        assert_eq!((answer.status, answer.text()), (206, "new"), "{coding}");
    }
    edge.stop().await;
}
