//! What is stored, for how long, and what is served while the origin is asked, or does not answer.

use std::time::Duration;

use edge::fields::dates;
use origin_sync::bucket::{Barrier, Fault, Meta, Rule};

use crate::client::Answer;
use crate::scripted::{self, Scripted};
use crate::support::{TestBucket, TestEdge, all, request};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_is_a_miss_and_the_second_a_hit() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "alert(1);", "max-age=60").await;
    let edge = TestEdge::start(&bucket, "").await;
    let first = edge.get("/a.js", &[]).await;
    assert_eq!((first.status, first.text()), (200, "alert(1);"));
    assert_eq!(
        first.field("cache-status"),
        Some("portico; fwd=uri-miss; fwd-status=200; ttl=60; stored")
    );
    edge.advance(&bucket, Duration::from_secs(10));
    let second = edge.get("/a.js", &[]).await;
    assert_eq!(second.text(), "alert(1);");
    assert_eq!(second.field("cache-status"), Some("portico; hit; ttl=50"));
    assert_eq!(second.field("age"), Some("10"));
    assert_eq!(bucket.asked("a.js").len(), 1);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_of_a_cold_key_are_one_fetch() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x".repeat(5000), "max-age=60").await;
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldUntil(barrier.clone())).key("a.js"));
    let edge = TestEdge::start(&bucket, "").await;
    let clients = (0..50).map(|_| edge.get("/a.js", &[]));
    let all = all(clients.collect());
    let release = async {
        edge.until("followers", || edge.exchange().cache().flights.len() == 1)
            .await;
        barrier.arrived(1).await;
        barrier.release();
    };
    let (answers, ()) = tokio::join!(all, release);
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.body.len() == 5000)
    );
    assert_eq!(bucket.asked("a.js").len(), 1);
    edge.stop().await;
}

fn status(answer: &Answer) -> &str {
    answer
        .field("cache-status")
        .unwrap_or_else(|| panic!("no Cache-Status in {}", answer.head))
}

/// The freshness that remains, as a hit tells it.
fn ttl(answer: &Answer) -> i64 {
    let (_, ttl) = status(answer)
        .split_once("hit; ttl=")
        .unwrap_or_else(|| panic!("no hit: {}", status(answer)));
    ttl.split(';').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lifetime_is_what_the_object_says_and_the_shared_word_is_the_stronger() {
    let bucket = TestBucket::start().await;
    let edge = TestEdge::start(&bucket, "").await;
    for (key, cache_control, expected) in [
        ("max-age", "max-age=60", 60),
        ("shared", "max-age=60, s-maxage=30", 30),
        ("public", "public, max-age=31536000, immutable", 31_536_000),
        ("quoted", "max-age=\"60\"", 60),
        ("first", "MAX-AGE=60", 60),
    ] {
        bucket.put(key, "x", cache_control).await;
        let path = format!("/{key}");
        assert_eq!(edge.get(&path, &[]).await.status, 200);
        assert_eq!(ttl(&edge.get(&path, &[]).await), expected, "{cache_control}");
        assert_eq!(bucket.asked(key).len(), 1, "{cache_control}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expires_counts_where_there_is_no_max_age() {
    let bucket = TestBucket::start().await;
    let edge = TestEdge::start(&bucket, "").await;
    let expires = Some(dates::format(edge.clock.now() + Duration::from_secs(100)));
    bucket
        .put_with(
            "e",
            "x",
            Meta {
                expires: expires.clone(),
                ..Meta::default()
            },
        )
        .await;
    let both = Meta {
        expires,
        cache_control: Some("max-age=7".into()),
        ..Meta::default()
    };
    bucket.put_with("both", "x", both).await;
    let first = edge.get("/e", &[]).await;
    edge.get("/both", &[]).await;
    // The bucket's clock is the real one, and ran on since.
    let instant = |name: &str| httpdate::parse_http_date(first.field(name).unwrap()).unwrap();
    let lifetime = instant("expires").duration_since(instant("date")).unwrap();
    let left = ttl(&edge.get("/e", &[]).await) as u64;
    assert!(left.abs_diff(lifetime.as_secs()) <= 1, "{left} of {lifetime:?}");
    assert_eq!(ttl(&edge.get("/both", &[]).await), 7);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_for_a_shared_cache_is_passed_on_and_never_stored() {
    let bucket = TestBucket::start().await;
    let edge = TestEdge::start(&bucket, "").await;
    for (key, cache_control, reason) in [
        ("no-store", "no-store", "no-store"),
        ("both", "no-store, max-age=60", "no-store"),
        ("private", "private", "private"),
        ("private-aged", "private, max-age=600", "private"),
    ] {
        bucket.put(key, key, cache_control).await;
        let path = format!("/{key}");
        for count in 1..=2 {
            let answer = edge.get(&path, &[]).await;
            assert_eq!((answer.status, answer.text()), (200, key));
            assert_eq!(
                status(&answer),
                format!("portico; fwd=uri-miss; fwd-status=200; detail={reason}")
            );
            assert_eq!(bucket.asked(key).len(), count, "{cache_control}");
        }
    }
    assert_eq!(edge.exchange().cache().memory.entries(), 0);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_private_body_never_share_one_fetch() {
    let bucket = TestBucket::start().await;
    bucket.put("me", "x", "private").await;
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldUntil(barrier.clone())).key("me").times(1));
    let edge = TestEdge::start(&bucket, "").await;
    let clients = all((0..5).map(|_| edge.get("/me", &[])).collect());
    let release = async {
        barrier.arrived(1).await;
        barrier.release();
    };
    let (answers, ()) = tokio::join!(clients, release);
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.text() == "x")
    );
    assert!(answers.iter().all(|answer| !status(answer).contains("collapsed")));
    assert_eq!(bucket.asked("me").len(), 5);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_or_a_vary_of_the_origin_reaches_nobody() {
    let bucket = TestBucket::start().await;
    let origin = Scripted::start(|_| {
        scripted::ok(
            "cache-control: max-age=60\r\nset-cookie: id=1\r\nvary: Origin\r\nx-amz-id-2: a\r\n",
            b"x",
        )
    })
    .await;
    let edge = TestEdge::start_with(&bucket, "", "", |config| origin.stand_in(config)).await;
    for _ in 0..2 {
        let answer = edge.get("/a.png", &[("origin", "https://a.test")]).await;
        assert_eq!((answer.status, answer.text()), (200, "x"));
        for name in ["set-cookie", "vary", "x-amz-id-2"] {
            assert_eq!(answer.field(name), None, "{}", answer.head);
        }
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sites_lifetimes_set_bound_and_fill_in() {
    let bucket = TestBucket::start().await;
    let site = "ttl_default = \"20s\"\nttl_min = \"10s\"\nttl_max = \"100s\"\n\
                [[site.rule]]\npath = \"/rule/*\"\nttl = \"33s\"\n\
                [[site.rule]]\npath = \"/exact.js\"\nttl_max = \"12s\"\n";
    let edge = TestEdge::start(&bucket, site).await;
    for (key, cache_control, expected) in [
        ("silent", "", 20),
        ("short", "max-age=1", 10),
        ("long", "max-age=1000", 100),
        ("within", "max-age=50", 50),
        ("rule/a", "max-age=1000", 33),
        ("rule/b", "", 33),
        ("exact.js", "max-age=50", 12),
    ] {
        bucket.put(key, "x", cache_control).await;
        let path = format!("/{key}");
        edge.get(&path, &[]).await;
        assert_eq!(
            ttl(&edge.get(&path, &[]).await),
            expected,
            "{key} {cache_control}"
        );
    }
    bucket.put("rule/private", "x", "private").await;
    edge.get("/rule/private", &[]).await;
    assert!(
        status(&edge.get("/rule/private", &[]).await).ends_with("detail=private"),
        "no rule makes it shared"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_object_is_missing_for_ten_seconds_and_then_found() {
    let bucket = TestBucket::start().await;
    let edge = TestEdge::start(&bucket, "").await;
    let first = edge.get("/late.js", &[]).await;
    assert_eq!(first.status, 404);
    assert_eq!(
        status(&first),
        "portico; fwd=uri-miss; fwd-status=404; ttl=10; stored"
    );
    bucket.put("late.js", "now", "max-age=60").await;
    edge.advance(&bucket, Duration::from_secs(9));
    let held = edge.get("/late.js", &[]).await;
    assert_eq!(
        (held.status, status(&held)),
        (404, "portico; hit; ttl=1; detail=negative")
    );
    assert_eq!(
        (&held.body, held.field("content-type")),
        (&first.body, first.field("content-type"))
    );
    edge.advance(&bucket, Duration::from_secs(2));
    let found = edge.get("/late.js", &[]).await;
    assert_eq!((found.status, found.text()), (200, "now"), "{}", status(&found));
    assert_eq!(ttl(&edge.get("/late.js", &[]).await), 60);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_deleted_is_gone_once_its_time_is_over() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x", "max-age=60").await;
    let edge = TestEdge::start(&bucket, "stale_while_revalidate = \"0s\"").await;
    edge.get("/a.js", &[]).await;
    bucket.delete("a.js").await;
    assert_eq!(edge.get("/a.js", &[]).await.status, 200);
    edge.advance(&bucket, Duration::from_secs(61));
    let gone = edge.get("/a.js", &[]).await;
    assert_eq!(
        (gone.status, status(&gone)),
        (404, "portico; fwd=stale; fwd-status=404; ttl=10; stored")
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_response_that_did_not_change_is_confirmed_and_fresh_again() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x".repeat(1000), "max-age=60").await;
    let edge = TestEdge::start(&bucket, "stale_while_revalidate = \"0s\"").await;
    let first = edge.get("/a.js", &[]).await;
    edge.advance(&bucket, Duration::from_secs(61));
    let again = edge.get("/a.js", &[]).await;
    assert_eq!(
        status(&again),
        "portico; fwd=stale; fwd-status=304; ttl=60; stored"
    );
    assert_eq!((again.status, &again.body), (200, &first.body));
    let asked = bucket.asked("a.js");
    assert_eq!(asked.len(), 2);
    assert_eq!(
        (asked[1].if_none_match.as_deref(), asked[1].status),
        (first.field("etag"), Some(304))
    );
    edge.advance(&bucket, Duration::from_secs(10));
    assert_eq!(ttl(&edge.get("/a.js", &[]).await), 50);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_response_that_changed_is_replaced() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "one", "max-age=60").await;
    let edge = TestEdge::start(&bucket, "stale_while_revalidate = \"0s\"").await;
    let one = edge.get("/a.js", &[]).await;
    bucket.put("a.js", "two", "max-age=30").await;
    edge.advance(&bucket, Duration::from_secs(61));
    let two = edge.get("/a.js", &[]).await;
    assert_eq!(
        (two.text(), status(&two)),
        ("two", "portico; fwd=stale; fwd-status=200; ttl=30; stored")
    );
    assert_ne!(one.field("etag"), two.field("etag"));
    assert_eq!(ttl(&edge.get("/a.js", &[]).await), 30);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_that_forbids_storing_ends_the_storing() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "same", "max-age=60").await;
    let edge = TestEdge::start(&bucket, "stale_while_revalidate = \"0s\"").await;
    edge.get("/a.js", &[]).await;
    bucket.put("a.js", "same", "no-store").await;
    edge.advance(&bucket, Duration::from_secs(61));
    let confirmed = edge.get("/a.js", &[]).await;
    assert_eq!((confirmed.status, confirmed.text()), (200, "same"));
    assert!(!status(&confirmed).contains("stored"), "{}", status(&confirmed));
    assert!(edge.exchange().cache().memory.find(&edge.key("/a.js")).is_none());
    let next = edge.get("/a.js", &[]).await;
    assert_eq!(
        status(&next),
        "portico; fwd=uri-miss; fwd-status=200; detail=no-store"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cache_is_confirmed_at_each_use() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x", "no-cache").await;
    let edge = TestEdge::start(&bucket, "").await;
    edge.get("/a.js", &[]).await;
    for count in 2..=3 {
        let answer = edge.get("/a.js", &[]).await;
        assert!(
            status(&answer).starts_with("portico; fwd=stale; fwd-status=304"),
            "{}",
            status(&answer)
        );
        assert_eq!(bucket.asked("a.js").len(), count);
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_the_caches_part() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x".repeat(1000), "max-age=60").await;
    let edge = TestEdge::start(&bucket, "").await;
    let etag = edge.get("/a.js", &[]).await.field("etag").unwrap().to_owned();
    for (method, path, fields, code, expected) in [
        ("GET", "/a.js", &[][..], 200, "portico; hit; ttl=60"),
        ("HEAD", "/a.js", &[], 200, "portico; hit; ttl=60"),
        (
            "GET",
            "/a.js",
            &[("if-none-match", &*etag)],
            304,
            "portico; hit; ttl=60",
        ),
        (
            "GET",
            "/a.js",
            &[("range", "bytes=0-1")],
            206,
            "portico; hit; ttl=60",
        ),
        (
            "GET",
            "/a.js",
            &[("range", "bytes=5000-")],
            416,
            "portico; hit; ttl=60",
        ),
        (
            "GET",
            "/a.js",
            &[("if-match", "\"no\"")],
            412,
            "portico; hit; ttl=60",
        ),
        (
            "GET",
            "/none",
            &[],
            404,
            "portico; fwd=uri-miss; fwd-status=404; ttl=10; stored",
        ),
        (
            "GET",
            "/z",
            &[("cache-control", "only-if-cached")],
            504,
            "portico; fwd=uri-miss; detail=only-if-cached",
        ),
    ] {
        let answer = edge.ask(method, path, fields).await;
        assert_eq!(
            (answer.status, status(&answer)),
            (code, expected),
            "{method} {path} {fields:?}"
        );
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_if_cached_never_asks_the_origin() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x", "max-age=60").await;
    let edge = TestEdge::start(&bucket, "").await;
    let only = [("cache-control", "only-if-cached")];
    let absent = edge.get("/a.js", &only).await;
    assert_eq!(
        (absent.status, absent.field("cache-control")),
        (504, Some("no-store"))
    );
    assert!(bucket.asked("a.js").is_empty());
    edge.get("/a.js", &[]).await;
    assert_eq!(edge.get("/a.js", &only).await.status, 200);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_request_fills_the_cache_for_the_get_after_it() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x".repeat(1000), "max-age=60").await;
    let edge = TestEdge::start(&bucket, "").await;
    let missed = edge.ask("HEAD", "/a.js", &[]).await;
    assert_eq!(
        (missed.status, missed.field("content-length")),
        (200, Some("1000"))
    );
    let stored = || edge.exchange().cache().memory.find(&edge.key("/a.js")).is_some();
    edge.until("the fill", stored).await;
    let got = edge.get("/a.js", &[]).await;
    assert_eq!((ttl(&got), got.body.len()), (60, 1000));
    let hit = edge.ask("HEAD", "/a.js", &[]).await;
    for name in [
        "content-length",
        "etag",
        "content-type",
        "vary",
        "accept-ranges",
        "last-modified",
    ] {
        assert_eq!(hit.field(name), got.field(name), "{name}");
    }
    assert_eq!(bucket.asked("a.js").len(), 1);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_streams_past_and_is_not_stored() {
    let bucket = TestBucket::start().await;
    let body = crate::coding::noise(600 * 1024);
    bucket.put("big", body.clone(), "max-age=60").await;
    let edge = TestEdge::start_with(&bucket, "", "[cache]\nobject_max = \"512KiB\"", |_| {}).await;
    for count in 1..=2 {
        let answer = edge.get("/big", &[]).await;
        assert!(answer.status == 200 && answer.body == body);
        assert_eq!(
            status(&answer),
            "portico; fwd=uri-miss; fwd-status=200; detail=too-large"
        );
        assert_eq!(bucket.asked("big").len(), count);
    }
    let part = edge.get("/big", &[("range", "bytes=1000-1999")]).await;
    assert_eq!((part.status, &part.body[..]), (206, &body[1000..2000]));
    assert_eq!(part.field("content-range"), Some("bytes 1000-1999/614400"));
    let asked = bucket.asked("big");
    assert_eq!(
        asked.last().unwrap().range.as_deref(),
        Some("bytes=1000-1999"),
        "no more than that is fetched"
    );
    assert_eq!(edge.exchange().cache().memory.entries(), 0);
    edge.until("everything to be given back", || {
        edge.metric("edge_cache_in_flight_bytes") == 0
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_a_coded_body_over_the_limit_is_not_decoded_in_parts() {
    let bucket = TestBucket::start().await;
    let body = crate::coding::noise(400 * 1024);
    let coded = crate::coding::encode(edge::representation::coding::Coding::Gzip, &body);
    let meta = Meta {
        content_encoding: Some("gzip".into()),
        cache_control: Some("max-age=60".into()),
        ..Meta::default()
    };
    bucket.put_with("big.js", coded.clone(), meta).await;
    let edge = TestEdge::start_with(&bucket, "", "[cache]\nobject_max = \"64KiB\"", |_| {}).await;
    let plain = edge.get("/big.js", &[("range", "bytes=1000-1999")]).await;
    assert!(plain.status == 200 && plain.body == body, "{}", plain.head);
    let part = edge
        .get(
            "/big.js",
            &[("range", "bytes=1000-1999"), ("accept-encoding", "gzip")],
        )
        .await;
    assert_eq!(
        (part.status, &part.body[..]),
        (206, &coded[1000..2000]),
        "{}",
        part.head
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_unknown_length_that_outgrows_the_limit_reaches_all_who_asked() {
    let bucket = TestBucket::start().await;
    let body = crate::coding::noise(3 << 20);
    let sent = body.clone();
    let origin =
        Scripted::start(move |_| scripted::chunked("cache-control: max-age=60\r\netag: \"a\"\r\n", &sent))
            .await;
    let table = "[cache]\nobject_max = \"64KiB\"";
    let edge = TestEdge::start_with(&bucket, "", table, |config| origin.stand_in(config)).await;
    let answers = all((0..10).map(|_| edge.get("/big.png", &[])).collect()).await;
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert!(answer.body == body);
    }
    assert_eq!(edge.exchange().cache().memory.entries(), 0);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_beyond_the_budget_are_served_without_being_kept() {
    let bucket = TestBucket::start().await;
    let body = crate::coding::noise(1024 * 1024);
    let barrier = Barrier::new();
    for number in 0..20 {
        let key = format!("{number}.png");
        bucket.put(&key, body.clone(), "max-age=60").await;
        bucket.fault(Rule::new(Fault::HoldBodyUntil(300 * 1024, barrier.clone())).key(key));
    }
    // Half of it is for what is stored, and a quarter is kept free for what streams past. Each takes one and a half times
    // its length while it comes: sixteen may be kept.
    let edge = TestEdge::start_with(&bucket, "", "[cache]\nmemory = \"32MiB\"", |_| {}).await;
    let budget = edge.exchange().cache().budget.clone();
    let paths: Vec<_> = (0..20).map(|number| format!("/{number}.png")).collect();
    let clients = all(paths.iter().map(|path| edge.get(path, &[])).collect());
    let release = async {
        barrier.arrived(20).await;
        let refused = || edge.metric("edge_cache_not_stored_total{reason=\"over-budget\"}") == 4;
        edge.until("all of them to be judged", refused).await;
        assert!(
            budget.used() <= budget.capacity() && budget.used() >= 16 << 20,
            "{}",
            budget.used()
        );
        barrier.release();
    };
    let (answers, ()) = tokio::join!(clients, release);
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.body == body)
    );
    let over = answers
        .iter()
        .filter(|answer| status(answer).ends_with("detail=over-budget"))
        .count();
    assert_eq!(over, 4);
    edge.until("everything to be given back", || {
        edge.metric("edge_cache_in_flight_bytes") == 0
    })
    .await;
    assert!((12..=16).contains(&edge.exchange().cache().memory.entries()));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_room_even_to_stream_the_answer_says_when_to_ask_again() {
    let bucket = TestBucket::start().await;
    let body = crate::coding::noise(3 << 20);
    let barrier = Barrier::new();
    let keys: Vec<_> = (0..12).map(|number| format!("{number}.png")).collect();
    for key in &keys {
        bucket.put(key, body.clone(), "max-age=60").await;
        bucket.fault(Rule::new(Fault::HoldBodyUntil(100_000, barrier.clone())).key(key.as_str()));
    }
    bucket.put("small.txt", b"small".to_vec(), "max-age=60").await;
    // Larger than a quarter of it: they all stream past, and there is room for some that do. Each counts with its window, and
    // with what its connection to the bucket may hold.
    let edge = TestEdge::start_with(&bucket, "", "[cache]\nmemory = \"8MiB\"", patient).await;
    let budget = edge.exchange().cache().budget.clone();
    let paths: Vec<_> = keys.iter().map(|key| format!("/{key}")).collect();
    let clients = all(paths.iter().map(|path| edge.get(path, &[])).collect());
    let release = async {
        // Those that find no room wait for their turn, which does not come as long as the bucket holds the others back.
        edge.until("those without room to be told", || {
            edge.metric("edge_no_room_total") == 5
        })
        .await;
        assert_eq!(
            (
                edge.metric("edge_cache_not_stored_total{reason=\"too-large\"}"),
                budget.waiting()
            ),
            (12, 0)
        );
        assert!(budget.used() <= budget.capacity(), "{}", budget.used());
        // A small body is not refused for the large ones, also now.
        assert!(edge.get("/small.txt", &[]).await.body == b"small");
        barrier.release();
    };
    let (answers, ()) = tokio::join!(clients, release);
    let (served, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((served.len(), refused.len()), (7, 5));
    assert!(served.iter().all(|answer| answer.body == body));
    for answer in refused {
        assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
        assert!(
            status(answer).ends_with("detail=connection_limit_reached"),
            "{}",
            status(answer)
        );
    }
    edge.until("everything to be given back", || {
        edge.metric("edge_cache_in_flight_bytes") == 0
    })
    .await;
    // It may be one that was refused, which is remembered for a moment.
    let again = async {
        loop {
            let answer = edge.get("/0.png", &[]).await;
            if answer.status == 200 {
                break answer;
            }
        }
    };
    assert!(crate::client::soon("room once more", again).await.body == body);
    edge.stop().await;
}

/// A bucket that is held back takes as long as the test does.
pub(crate) fn patient(config: &mut edge::config::Config) {
    for origin in &mut config.origins {
        if let edge::config::OriginKind::S3(origin) = &mut origin.kind {
            origin.timeouts.read = Duration::from_secs(600);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_never_exceeds_the_cap() {
    let bucket = TestBucket::start().await;
    let body = crate::coding::noise(100 * 1024);
    for number in 0..60 {
        bucket
            .put(&format!("{number}.png"), body.clone(), "max-age=60")
            .await;
    }
    let edge = TestEdge::start_with(&bucket, "", "[cache]\nmemory = \"8MiB\"", |_| {}).await;
    for number in 0..60 {
        let answer = edge.get(&format!("/{number}.png"), &[]).await;
        assert!(answer.body == body);
        let held = edge.exchange().cache().memory.bytes();
        assert!(held <= 4 << 20, "{held} after {number}");
    }
    assert!(edge.exchange().cache().memory.entries() >= 35);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_a_strict_site_may_ask_for_validation_and_others_may_not() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x", "max-age=60").await;
    let plain = TestEdge::start(&bucket, "").await;
    let strict = TestEdge::start(&bucket, "strict = true").await;
    for fields in [
        [("cache-control", "no-cache")],
        [("cache-control", "max-age=0")],
        [("pragma", "no-cache")],
    ] {
        plain.get("/a.js", &[]).await;
        assert_eq!(ttl(&plain.get("/a.js", &fields).await), 60, "{fields:?}");
    }
    strict.get("/a.js", &[]).await;
    let asked = strict.get("/a.js", &[("cache-control", "no-cache")]).await;
    assert_eq!(
        status(&asked),
        "portico; fwd=request; fwd-status=304; ttl=60; stored"
    );
    plain.stop().await;
    strict.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_credentials_share_nothing_that_is_not_marked_public() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x", "max-age=60").await;
    bucket.put("b.js", "x", "public, max-age=60").await;
    let edge = TestEdge::start(&bucket, "").await;
    let mine = [("authorization", "Bearer mine")];
    assert!(status(&edge.get("/a.js", &mine).await).ends_with("detail=authorization"));
    assert!(status(&edge.get("/a.js", &[]).await).starts_with("portico; fwd=uri-miss"));
    edge.get("/b.js", &mine).await;
    assert_eq!(ttl(&edge.get("/b.js", &[]).await), 60);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_one_client_are_never_cached_for_others() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "good", "max-age=60").await;
    let edge = TestEdge::start(&bucket, "").await;
    let long = "x".repeat(20_000);
    for (method, fields, expected) in [
        ("GET", &[("x-long", &*long)][..], 431),
        ("GET", &[("x-meta", "a\u{7}b")], 400),
        ("POST", &[("content-length", "0")], 405),
        ("GET", &[("x-http-method-override", "DELETE")], 200),
        ("GET", &[("range", "bytes=99-")], 416),
        ("GET", &[("range", "bytes=a-b")], 200),
        ("GET", &[("if-match", "\"no\"")], 412),
        ("GET", &[("expect", "nonsense")], 417),
    ] {
        edge.exchange().cache().memory.remove(&edge.key("/a.js"));
        let answer = edge.ask(method, "/a.js", fields).await;
        assert_eq!(answer.status, expected, "{method} {fields:?}");
        let good = edge.get("/a.js", &[]).await;
        assert_eq!(
            (good.status, good.text()),
            (200, "good"),
            "after {method} {fields:?}"
        );
    }
    let raw = request("GET", "/a.js", &[]).replace("HTTP/1.1", "HTTP/9.9");
    let mut client = edge.client().await;
    client.send(raw).await;
    let _ = client.rest().await;
    assert_eq!(edge.get("/a.js", &[]).await.text(), "good");
    edge.stop().await;
}
