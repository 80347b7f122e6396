//! Many requests for one key: one fetch, whoever leaves, reads slowly, or comes late.

use std::time::Duration;

use edge::cache::epoch::Purge;
use origin_sync::bucket::{Barrier, Fault, Rule};

use crate::client::soon;
use crate::coding::noise;
use crate::scripted::{self, Scripted};
use crate::support::{TestBucket, TestEdge, all, request};

/// A body that fits no socket's buffer.
const BIG: usize = 12 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_clients_of_a_cold_key_are_one_fetch() {
    let bucket = TestBucket::start().await;
    let body = noise(100_000);
    bucket.put("a.png", body.clone(), "max-age=60").await;
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldUntil(barrier.clone())).key("a.png"));
    let edge = TestEdge::start(&bucket, "").await;
    let clients = all((0..500).map(|_| edge.get("/a.png", &[])).collect());
    let release = async {
        barrier.arrived(1).await;
        barrier.release();
    };
    let (answers, ()) = tokio::join!(clients, release);
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.body == body)
    );
    assert_eq!(bucket.asked("a.png").len(), 1);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_client_leaves_in_the_midst_and_the_others_get_everything() {
    let bucket = TestBucket::start().await;
    let body = noise(1 << 20);
    bucket.put("a.png", body.clone(), "max-age=60").await;
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldBodyUntil(500_000, barrier.clone())).key("a.png"));
    let edge = TestEdge::start(&bucket, "").await;
    let mut first = edge.client().await;
    first.send(request("GET", "/a.png", &[])).await;
    assert_eq!(first.head().await.unwrap().status, 200);
    first.take(1000).await.unwrap();
    let mut second = edge.client().await;
    second.send(request("GET", "/a.png", &[])).await;
    assert!(
        second
            .head()
            .await
            .unwrap()
            .field("cache-status")
            .unwrap()
            .contains("collapsed")
    );
    drop(first);
    barrier.release();
    assert!(second.take(body.len()).await.unwrap() == body);
    assert!(
        edge.get("/a.png", &[])
            .await
            .field("cache-status")
            .unwrap()
            .contains("hit")
    );
    assert_eq!(bucket.asked("a.png").len(), 1);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_client_leaves_before_the_answer_and_the_fetch_still_fills_the_cache() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x", "max-age=60").await;
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldUntil(barrier.clone())).key("a.js"));
    let edge = TestEdge::start(&bucket, "").await;
    let mut client = edge.client().await;
    client.send(request("GET", "/a.js", &[])).await;
    barrier.arrived(1).await;
    drop(client);
    barrier.release();
    edge.until("the fill", || {
        edge.exchange().cache().memory.find(&edge.key("/a.js")).is_some()
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_reads_nothing_slows_nobody_and_holds_no_budget() {
    let bucket = TestBucket::start().await;
    let body = noise(BIG);
    bucket.put("a.png", body.clone(), "max-age=60").await;
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldUntil(barrier.clone())).key("a.png"));
    let edge = TestEdge::start(&bucket, "").await;
    let mut idle = edge.client().await;
    idle.send(request("GET", "/a.png", &[])).await;
    barrier.arrived(1).await;
    let release = async { barrier.release() };
    let (answer, ()) = tokio::join!(edge.get("/a.png", &[]), release);
    assert!(answer.body == body);
    // The body is stored, and what the idle one still has to read is that stored body.
    edge.until("the budget to be given back", || {
        edge.metric("edge_cache_in_flight_bytes") == 0
    })
    .await;
    assert!(soon("the idle one's body", idle.answer()).await.body == body);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_gets_what_has_arrived_before_the_rest_exists() {
    let bucket = TestBucket::start().await;
    let body = noise(400_000);
    bucket.put("a.png", body.clone(), "max-age=60").await;
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldBodyUntil(200_000, barrier.clone())).key("a.png"));
    let edge = TestEdge::start(&bucket, "").await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = edge.client().await;
        client.send(request("GET", "/a.png", &[])).await;
        assert_eq!(client.head().await.unwrap().status, 200);
        assert!(client.take(150_000).await.unwrap() == body[..150_000]);
        clients.push(client);
    }
    // A range that has arrived is answered whole, before the rest exists.
    let part = edge.get("/a.png", &[("range", "bytes=100-999")]).await;
    assert_eq!((part.status, &part.body[..]), (206, &body[100..1000]));
    barrier.release();
    for mut client in clients {
        assert!(client.take(250_000).await.unwrap() == body[150_000..]);
    }
    assert_eq!(bucket.asked("a.png").len(), 1);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coded_form_streams_too() {
    let bucket = TestBucket::start().await;
    let body = noise(3 << 20);
    bucket.put("a.js", body.clone(), "max-age=60").await;
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldBodyUntil(2 << 20, barrier.clone())).key("a.js"));
    let edge = TestEdge::start(&bucket, "").await;
    let mut client = edge.client().await;
    client
        .send(request("GET", "/a.js", &[("accept-encoding", "gzip")]))
        .await;
    assert_eq!(
        client.head().await.unwrap().field("content-encoding"),
        Some("gzip")
    );
    assert!(client.take(100_000).await.is_some());
    barrier.release();
    drop(client);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_dies_in_the_midst_never_looks_like_a_clean_end() {
    let bucket = TestBucket::start().await;
    let body = noise(1_000_000);
    bucket.put("a.png", body.clone(), "max-age=60").await;
    bucket.put("a.js", body.clone(), "max-age=60").await;
    let edge = TestEdge::start(&bucket, "").await;
    for (path, fields) in [("/a.png", &[][..]), ("/a.js", &[("accept-encoding", "br")])] {
        let key = &path[1..];
        let rule = bucket.fault(Rule::new(Fault::TruncateAfter(600_000)).key(key));
        let barrier = Barrier::new();
        let hold = bucket.fault(Rule::new(Fault::HoldBodyUntil(100_000, barrier.clone())).key(key));
        // It resumes where it broke, until it has no attempts left: let each resumed part break at once.
        bucket.fault(Rule::new(Fault::TruncateAfter(0)).key(key).prefix("never"));
        let mut clients = Vec::new();
        for _ in 0..5 {
            let mut client = edge.client().await;
            client.send(request("GET", path, fields)).await;
            clients.push(client);
        }
        barrier.arrived(1).await;
        bucket.faults().remove(hold);
        bucket
            .faults()
            .add(Rule::new(Fault::Status(500, "InternalError".into())).key(key));
        barrier.release();
        for mut client in clients {
            assert!(client.try_answer(false).await.is_none(), "{path} ended cleanly");
        }
        assert!(
            edge.exchange().cache().memory.find(&edge.key(path)).is_none(),
            "{path} was stored"
        );
        bucket.faults().remove(rule);
        bucket.faults().clear();
        let whole = async {
            loop {
                let answer = edge.get(path, &[]).await;
                if answer.status == 200 {
                    return answer.body;
                }
            }
        };
        assert!(soon("the next fetch", whole).await == body);
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_reset_in_the_midst_is_mended_and_nobody_notices() {
    let bucket = TestBucket::start().await;
    let body = noise(1_000_000);
    bucket.put("a.png", body.clone(), "max-age=60").await;
    let edge = TestEdge::start(&bucket, "").await;
    bucket.fault(Rule::new(Fault::ResetAfter(400_000)).key("a.png").times(1));
    let answers = all((0..5).map(|_| edge.get("/a.png", &[])).collect()).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.body == body)
    );
    let asked = bucket.asked("a.png");
    assert!(
        asked[1].range.is_some() && asked[1].if_match.is_some(),
        "{asked:?}"
    );
    assert!(
        edge.get("/a.png", &[])
            .await
            .field("cache-status")
            .unwrap()
            .contains("hit")
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changes_in_the_midst_is_never_mixed() {
    let bucket = TestBucket::start().await;
    let (old, new) = (vec![b'o'; 1_000_000], vec![b'n'; 1_000_000]);
    bucket.put("a.png", old.clone(), "max-age=60").await;
    let edge = TestEdge::start(&bucket, "").await;
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldUntil(barrier.clone())).key("a.png").times(1));
    bucket.fault(Rule::new(Fault::TruncateAfter(400_000)).key("a.png").times(1));
    let mut client = edge.client().await;
    client.send(request("GET", "/a.png", &[])).await;
    barrier.arrived(1).await;
    bucket.put("a.png", new.clone(), "max-age=60").await;
    barrier.release();
    if let Some(answer) = client.try_answer(false).await {
        assert!(
            answer.body == old || answer.body == new,
            "two versions in one body"
        );
    }
    let now = async {
        loop {
            let answer = edge.get("/a.png", &[]).await;
            if answer.status == 200 {
                return answer.body;
            }
        }
    };
    assert!(soon("the new one", now).await == new);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_from_before_a_purge_is_neither_joined_nor_fresh_after_it() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "old", "max-age=60").await;
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldUntil(barrier.clone())).key("a.js").times(1));
    let edge = TestEdge::start(&bucket, "").await;
    let mut before = edge.client().await;
    before.send(request("GET", "/a.js", &[])).await;
    barrier.arrived(1).await;
    bucket.put("a.js", "new", "max-age=60").await;
    edge.purge(Purge {
        everything: true,
        ..Purge::default()
    });
    let after = edge.get("/a.js", &[]).await;
    assert_eq!(after.text(), "new");
    assert!(!after.field("cache-status").unwrap().contains("collapsed"));
    barrier.release();
    assert_eq!(
        before.answer().await.text(),
        "old",
        "who asked before may get what was there before"
    );
    edge.until("both fetches to end", || {
        edge.exchange().cache().flights.is_empty()
    })
    .await;
    let hit = edge.get("/a.js", &[]).await;
    assert_eq!(
        (hit.text(), hit.field("cache-status")),
        ("new", Some("portico; hit; ttl=60"))
    );
    assert_eq!(
        bucket.asked("a.js").len(),
        2,
        "the old fetch did not push the new response out"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_a_purge_overtakes_is_stored_for_nobody() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "old", "max-age=60").await;
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldUntil(barrier.clone())).key("a.js").times(1));
    let edge = TestEdge::start(&bucket, "").await;
    let mut before = edge.client().await;
    before.send(request("GET", "/a.js", &[])).await;
    barrier.arrived(1).await;
    bucket.put("a.js", "new", "max-age=60").await;
    edge.purge(Purge {
        everything: true,
        ..Purge::default()
    });
    barrier.release();
    before.answer().await;
    assert_eq!(edge.get("/a.js", &[]).await.text(), "new");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_come_while_a_body_arrives_share_it_even_without_a_length() {
    let bucket = TestBucket::start().await;
    let body = noise(200_000);
    let sent = body.clone();
    let origin =
        Scripted::start(move |_| scripted::chunked("cache-control: max-age=60\r\netag: \"a\"\r\n", &sent))
            .await;
    let edge = TestEdge::start_with(&bucket, "", "", |config| origin.stand_in(config)).await;
    let answers = all((0..20).map(|_| edge.get("/a.png", &[])).collect()).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.body == body)
    );
    assert_eq!(origin.heads().len(), 1);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_that_breaks_off_is_not_taken_for_whole() {
    let bucket = TestBucket::start().await;
    let origin = Scripted::start(|_| {
        let whole = scripted::chunked("cache-control: max-age=60\r\n", &noise(100_000));
        whole[..whole.len() - 5].to_vec()
    })
    .await;
    let edge = TestEdge::start_with(&bucket, "", "", |config| origin.stand_in(config)).await;
    let mut client = edge.client().await;
    client.send(request("GET", "/a.png", &[])).await;
    assert_eq!(
        client.answer().await.status,
        502,
        "a small one is known to be broken before its head goes on"
    );
    assert_eq!(edge.exchange().cache().memory.entries(), 0);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_key_of_a_hanging_origin_ends_in_time() {
    let bucket = TestBucket::start().await;
    bucket.fault(Rule::new(Fault::HangBeforeHeaders));
    let timeouts = "[origin.assets.timeouts]\nattempts = 1\nattempt = \"1s\"\noperation = \"2s\"\n";
    let edge = TestEdge::start_with(&bucket, "", timeouts, |_| {}).await;
    let began = tokio::time::Instant::now();
    let answers = tokio::time::timeout(
        Duration::from_secs(40),
        all((0..50).map(|_| edge.get("/a.js", &[])).collect()),
    );
    assert!(answers.await.unwrap().iter().all(|answer| answer.status == 504));
    bucket.until_asked("a.js", 1).await;
    // Who comes only when the failure is not held any more begins another.
    let asked = bucket.asked("a.js").len() as u64;
    assert!(asked <= 1 + began.elapsed().as_secs() && asked < 50, "{asked}");
    edge.stop().await;
}
