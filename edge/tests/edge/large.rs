//! Bodies that are larger than memory and still on their way: one fetch for all, ranges far ahead of it, origins that die in
//! the midst, and versions that change.

use std::path::Path;

use edge::config;
use origin_sync::bucket::{Barrier, Fault, Rule};
use tempfile::TempDir;

use crate::support::{PATIENT, TestBucket, TestEdge, request};

const MIB: u64 = 1024 * 1024;

/// So large that its end is far from its beginning.
const LARGE: usize = 24_000_000;

/// Where an origin dies that gets to 60 %.
const SIXTY: u64 = LARGE as u64 * 6 / 10;

fn body(seed: usize) -> Vec<u8> {
    (0..LARGE)
        .map(|at| (at / 251 + at * 7 + seed * 13) as u8)
        .collect()
}

async fn start(bucket: &TestBucket, folder: Option<&Path>) -> TestEdge {
    let disk = folder.map(|path| config::Disk {
        path: path.into(),
        size_bytes: 256 * MIB,
        patience: PATIENT,
    });
    TestEdge::start_with(bucket, "", "", |config| {
        config.cache.memory_bytes = 8 * MIB;
        config.cache.object_bytes_max = 256 * 1024;
        config.cache.disk = disk;
        crate::caching::patient(config);
    })
    .await
}

async fn settle(edge: &TestEdge) {
    edge.until("the fetches", || edge.exchange().cache().flights.is_empty())
        .await;
    edge.exchange().cache().disk.as_ref().unwrap().flush().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_far_into_a_cold_body_does_not_wait_for_all_before_it() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    let whole = body(1);
    bucket.put("large.bin", whole.clone(), "max-age=600").await;
    let edge = start(&bucket, Some(folder.path())).await;
    let barrier = Barrier::new();
    bucket.fault(
        Rule::new(Fault::HoldBodyUntil(1_000_000, barrier.clone()))
            .key("large.bin")
            .times(1),
    );
    let first = edge.get("/large.bin", &[("range", "bytes=0-99999")]).await;
    assert!(first.status == 206 && first.body == whole[..100_000]);
    // The rest is held back, and the far end comes all the same.
    let far = edge
        .get("/large.bin", &[("range", "bytes=20000000-20099999")])
        .await;
    assert!(far.status == 206 && far.body == whole[20_000_000..20_100_000]);
    assert_eq!(
        far.field("content-range"),
        Some("bytes 20000000-20099999/24000000")
    );
    let asked = bucket.asked("large.bin");
    assert_eq!(asked.len(), 2);
    // From the chunk in which it begins, and to the end: the fetch of the whole leaves that to it.
    assert_eq!(asked[1].range.as_deref(), Some("bytes=19988480-"));
    barrier.release();
    settle(&edge).await;
    let again = edge
        .get("/large.bin", &[("range", "bytes=20000000-20099999")])
        .await;
    assert!(again.body == far.body && again.field("cache-status").unwrap().ends_with("detail=disk"));
    assert!(edge.get("/large.bin", &[]).await.body == whole);
    assert_eq!(bucket.asked("large.bin").len(), 2, "the whole was fetched once");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_ask_for_different_ranges_of_a_cold_body_fetch_no_byte_twice() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    let whole = body(1);
    bucket.put("large.bin", whole.clone(), "max-age=600").await;
    let edge = start(&bucket, Some(folder.path())).await;
    let barrier = Barrier::new();
    bucket.fault(
        Rule::new(Fault::HoldBodyUntil(1_000_000, barrier.clone()))
            .key("large.bin")
            .times(1),
    );
    let range = async |first: usize, last: usize| {
        let asked = format!("bytes={first}-{last}");
        let answer = edge.get("/large.bin", &[("range", asked.as_str())]).await;
        assert!(
            answer.status == 206 && answer.body == whole[first..=last],
            "{asked}"
        );
    };
    range(0, 99_999).await;
    // Far ahead, within what comes there by then, and between both: up to where the one before began.
    let far = Barrier::new();
    bucket.fault(
        Rule::new(Fault::HoldBodyUntil(1_000_000, far.clone()))
            .key("large.bin")
            .times(1),
    );
    range(20_000_000, 20_099_999).await;
    let (beyond, ()) = tokio::join!(range(21_500_000, 21_599_999), async {
        range(20_050_000, 20_149_999).await;
        far.release();
    });
    let () = beyond;
    range(12_000_000, 12_099_999).await;
    let asked = || -> Vec<_> {
        let seen = bucket.asked("large.bin");
        seen.into_iter()
            .map(|seen| seen.range.unwrap_or_default())
            .collect()
    };
    assert_eq!(asked(), ["", "bytes=19988480-", "bytes=11993088-19988479"]);
    barrier.release();
    assert!(edge.get("/large.bin", &[]).await.body == whole);
    settle(&edge).await;
    assert_eq!(asked().len(), 3, "the whole was made of what had come");
    edge.stop().await;
    let edge = start(&bucket, Some(folder.path())).await;
    let again = edge.get("/large.bin", &[]).await;
    assert!(again.body == whole && again.field("cache-status").unwrap().ends_with("detail=disk"));
    assert_eq!(bucket.asked("large.bin").len(), 3);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_far_into_a_cold_body_is_made_good_by_the_fetch_of_the_whole() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    let whole = body(6);
    bucket.put("large.bin", whole.clone(), "max-age=600").await;
    let edge = start(&bucket, Some(folder.path())).await;
    let barrier = Barrier::new();
    bucket.fault(
        Rule::new(Fault::HoldBodyUntil(1_000_000, barrier.clone()))
            .key("large.bin")
            .times(1),
    );
    let first = edge.get("/large.bin", &[("range", "bytes=0-99999")]).await;
    assert!(first.body == whole[..100_000]);
    // Whoever is asked for the far end says that it is another version's, as often as it is asked.
    bucket.fault(Rule::new(Fault::WrongEtag).times(1));
    let far = edge.get("/large.bin", &[("range", "bytes=20000000-20099999")]);
    let release = async {
        bucket.until_asked("large.bin", 2).await;
        barrier.release();
    };
    let (far, ()) = tokio::join!(far, release);
    assert!(far.status == 206 && far.body == whole[20_000_000..20_100_000]);
    settle(&edge).await;
    let again = edge.get("/large.bin", &[]).await;
    assert!(again.body == whole && again.field("cache-status").unwrap().ends_with("detail=disk"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_byte_in_what_came_far_ahead_is_noticed_before_the_whole_is_stored() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    let whole = body(7);
    bucket.put("large.bin", whole.clone(), "max-age=600").await;
    bucket.put("small.js", "small", "max-age=600").await;
    let edge = start(&bucket, Some(folder.path())).await;
    // From here on the bucket's entity tags are known to be digests.
    assert_eq!(edge.get("/small.js", &[]).await.text(), "small");
    let barrier = Barrier::new();
    bucket.fault(
        Rule::new(Fault::HoldBodyUntil(1_000_000, barrier.clone()))
            .key("large.bin")
            .times(1),
    );
    let first = edge.get("/large.bin", &[("range", "bytes=0-99999")]).await;
    assert!(first.body == whole[..100_000]);
    bucket.fault(Rule::new(Fault::FlipByte(3_000_000)).key("large.bin").times(1));
    let far = edge
        .get("/large.bin", &[("range", "bytes=20000000-20099999")])
        .await;
    assert!(far.status == 206 && far.body == whole[20_000_000..20_100_000]);
    barrier.release();
    settle(&edge).await;
    assert_eq!(
        edge.metric("edge_origin_errors_total{error=\"checksum_mismatch\"}"),
        1
    );
    let again = edge.get("/large.bin", &[]).await;
    assert!(again.body == whole, "the wrong byte went no further");
    assert!(!again.field("cache-status").unwrap().contains("hit"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_of_one_version_also_when_the_body_changes_while_it_comes() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    let (old, new) = (body(1), body(2));
    bucket.put("large.bin", old.clone(), "max-age=600").await;
    let edge = start(&bucket, Some(folder.path())).await;
    let barrier = Barrier::new();
    bucket.fault(
        Rule::new(Fault::HoldBodyUntil(1_000_000, barrier.clone()))
            .key("large.bin")
            .times(1),
    );
    let first = edge.get("/large.bin", &[("range", "bytes=0-99")]).await;
    let etag = first.field("etag").unwrap().to_owned();
    bucket.put("large.bin", new.clone(), "max-age=600").await;
    // The far range of the new version is not given out for one of the old: it waits for the old one's.
    let fields = [("range", "bytes=20000000-20000099"), ("if-range", etag.as_str())];
    let far = edge.get("/large.bin", &fields);
    let release = async {
        bucket.until_asked("large.bin", 2).await;
        barrier.release();
    };
    let (far, ()) = tokio::join!(far, release);
    assert_eq!((far.status, far.field("etag")), (206, Some(etag.as_str())));
    assert!(far.body == old[20_000_000..20_000_100]);
    settle(&edge).await;
    edge.purge(edge::cache::epoch::Purge {
        everything: true,
        ..Default::default()
    });
    let whole = edge.get("/large.bin", &[]).await;
    assert!(whole.body == new && whole.field("etag") != Some(etag.as_str()));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_dies_at_sixty_percent_is_asked_for_the_rest_of_the_same_version() {
    for on_disk in [true, false] {
        let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
        let whole = body(3);
        bucket.put("large.bin", whole.clone(), "max-age=600").await;
        let edge = start(&bucket, on_disk.then_some(folder.path())).await;
        bucket.fault(Rule::new(Fault::ResetAfter(SIXTY)).key("large.bin").times(1));
        let answer = edge.get("/large.bin", &[]).await;
        assert!(answer.status == 200 && answer.body == whole, "{on_disk}");
        let asked = bucket.asked("large.bin");
        assert_eq!(asked.len(), 2, "{on_disk}");
        let range = asked[1].range.clone().unwrap();
        let from: u64 = range
            .trim_start_matches("bytes=")
            .split('-')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            (1..=SIXTY).contains(&from) && asked[1].if_match.is_some(),
            "{range}"
        );
        if on_disk {
            settle(&edge).await;
            let again = edge.get("/large.bin", &[]).await;
            assert!(again.body == whole);
            assert_eq!(bucket.asked("large.bin").len(), 2, "it is stored");
        }
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_dies_and_has_another_version_then_never_ends_an_answer_cleanly() {
    for on_disk in [true, false] {
        let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
        let whole = body(4);
        bucket.put("large.bin", whole.clone(), "max-age=600").await;
        let edge = start(&bucket, on_disk.then_some(folder.path())).await;
        let barrier = Barrier::new();
        bucket.fault(Rule::new(Fault::HoldBodyUntil(1_000_000, barrier.clone())).times(1));
        bucket.fault(Rule::new(Fault::ResetAfter(SIXTY)).times(1));
        let mut client = edge.client().await;
        client.send(request("GET", "/large.bin", &[])).await;
        barrier.arrived(1).await;
        // Of the rest it says that it is another version's, as often as it is asked.
        bucket.fault(Rule::new(Fault::WrongEtag).times(4));
        barrier.release();
        let head = client.head().await.unwrap();
        assert_eq!(
            (head.status, head.field("content-length")),
            (200, Some("24000000"))
        );
        let got = client.rest().await;
        assert!(got.len() < LARGE, "{on_disk}: an answer that broke looks whole");
        assert!(whole.starts_with(&got), "{on_disk}");
        bucket.faults().clear();
        edge.until("the fetches", || edge.exchange().cache().flights.is_empty())
            .await;
        let again = edge.get("/large.bin", &[]).await;
        assert!(again.body == whole, "{on_disk}: nothing of it was kept");
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_disk_each_gets_the_range_that_it_asked_for_and_nobody_the_whole() {
    let bucket = TestBucket::start().await;
    let whole = body(5);
    bucket.put("large.bin", whole.clone(), "max-age=600").await;
    let edge = start(&bucket, None).await;
    let (near, far) = tokio::join!(
        edge.get("/large.bin", &[("range", "bytes=10-19")]),
        edge.get("/large.bin", &[("range", "bytes=23000000-23000009")]),
    );
    assert!(near.status == 206 && near.body == whole[10..20]);
    assert!(far.status == 206 && far.body == whole[23_000_000..23_000_010]);
    let ranges = bucket.asked("large.bin");
    let ranges: Vec<_> = ranges.iter().filter_map(|seen| seen.range.as_deref()).collect();
    assert!(ranges.contains(&"bytes=10-19") && ranges.contains(&"bytes=23000000-23000009"));
    edge.until("everything to be given back", || {
        edge.metric("edge_cache_in_flight_bytes") == 0
    })
    .await;
    edge.stop().await;
}
