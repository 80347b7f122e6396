//! The disk tier under a whole node: restarts, bodies larger than memory, damage, and a disk that is full.

use std::path::{Path, PathBuf};
use std::time::Duration;

use edge::cache::epoch::{Purge, Url};
use edge::cache::store::disk::{EMFILE, ENOSPC, Failing, Fault as DiskFault, Op};
use edge::config::{self, Config};
use origin_sync::bucket::{Barrier, Fault, Rule};
use tempfile::TempDir;

use crate::client::Answer;
use crate::support::{HOST, PATIENT, TestBucket, TestEdge, all};

const MIB: u64 = 1024 * 1024;

/// Larger than what the nodes here keep in memory.
const LARGE: usize = 3_000_000;

/// Gives a node a disk tier, and little memory.
fn on_disk(folder: &Path) -> impl FnOnce(&mut Config) + use<> {
    let path = PathBuf::from(folder);
    move |config| {
        crate::caching::patient(config);
        config.cache.memory_bytes = 8 * MIB;
        config.cache.object_bytes_max = 256 * 1024;
        config.cache.disk = Some(config::Disk {
            path,
            size_bytes: 64 * MIB,
            patience: PATIENT,
        });
    }
}

async fn start(bucket: &TestBucket, folder: &Path) -> TestEdge {
    TestEdge::start_with(bucket, "", "", on_disk(folder)).await
}

fn status(answer: &Answer) -> &str {
    answer.field("cache-status").unwrap_or("no Cache-Status")
}

fn body(seed: usize, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at / 253 + at * 5 + seed * 11) as u8)
        .collect()
}

/// Waits until everything offered to the disk is in its files.
async fn settle(edge: &TestEdge) {
    edge.until("the fetches", || edge.exchange().cache().flights.is_empty())
        .await;
    edge.exchange().cache().disk.as_ref().unwrap().flush().await;
}

fn url(path: &str) -> Purge {
    Purge {
        urls: vec![Url {
            host: HOST.into(),
            path: path.into(),
            query: None,
        }],
        ..Purge::default()
    }
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.to_str().unwrap().ends_with(ending))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_memory_does_not_take_is_answered_from_the_disk_all_the_same() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    let edge = start(&bucket, folder.path()).await;
    // Five times what memory keeps: it holds on to what it knows, and refuses what is new to it.
    let paths: Vec<String> = (0..200).map(|number| format!("/{number}.bin")).collect();
    for (number, path) in paths.iter().enumerate() {
        bucket.put(&path[1..], body(number, 100_000), "max-age=600").await;
        edge.get(path, &[]).await;
        settle(&edge).await;
    }
    for round in 0..3 {
        for (number, path) in paths.iter().enumerate() {
            let answer = edge.get(path, &[]).await;
            assert!(answer.body == body(number, 100_000), "{path}");
            assert!(
                status(&answer).starts_with("portico; hit"),
                "{round} {path}: {}",
                status(&answer)
            );
        }
    }
    assert_eq!(bucket.asked("7.bin").len(), 1);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_again_answers_what_it_had_without_its_origin() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    bucket.put("small.js", body(1, 1000), "max-age=600").await;
    bucket.put("middle.js", body(2, 200_000), "max-age=600").await;
    bucket.put("large.bin", body(3, LARGE), "max-age=600").await;
    let expected = [
        ("/small.js", body(1, 1000)),
        ("/middle.js", body(2, 200_000)),
        ("/large.bin", body(3, LARGE)),
    ];
    let edge = start(&bucket, folder.path()).await;
    for (path, body) in &expected {
        let answer = edge.get(path, &[]).await;
        assert!(answer.body == *body, "{path}");
        assert!(
            status(&answer).contains("fwd=uri-miss") && status(&answer).contains("stored"),
            "{path}"
        );
    }
    settle(&edge).await;
    edge.stop().await;
    let asked = bucket.log().len();
    bucket.fault(Rule::new(Fault::SlowDown));
    let edge = start(&bucket, folder.path()).await;
    for (path, body) in &expected {
        let answer = edge.get(path, &[]).await;
        assert!(answer.body == *body, "{path}");
        assert!(
            status(&answer).starts_with("portico; hit; ttl="),
            "{path}: {}",
            status(&answer)
        );
        assert!(
            status(&answer).ends_with("; detail=disk"),
            "{path}: {}",
            status(&answer)
        );
    }
    // What is small is in memory now; what is large streams from the disk each time.
    assert!(!status(&edge.get("/small.js", &[]).await).contains("disk"));
    assert!(status(&edge.get("/large.bin", &[]).await).ends_with("; detail=disk"));
    assert_eq!(bucket.log().len(), asked, "the origin was not asked");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_stale_while_the_node_was_away_is_validated_and_served_when_the_origin_is_gone() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    for key in ["a.js", "b.js"] {
        bucket.put(key, "kept", "max-age=1").await;
    }
    let site = "stale_while_revalidate = \"0s\"";
    let tables = "[origin.assets.timeouts]\nattempts = 1\n";
    let edge = TestEdge::start_with(&bucket, site, tables, on_disk(folder.path())).await;
    for path in ["/a.js", "/b.js"] {
        assert_eq!(edge.get(path, &[]).await.text(), "kept");
    }
    settle(&edge).await;
    edge.stop().await;
    let edge = TestEdge::start_with(&bucket, site, tables, on_disk(folder.path())).await;
    edge.advance(&bucket, Duration::from_secs(5));
    let answer = edge.get("/a.js", &[]).await;
    assert_eq!(answer.text(), "kept");
    assert!(
        status(&answer).starts_with("portico; fwd=stale; fwd-status=304"),
        "{}",
        status(&answer)
    );
    bucket.fault(Rule::new(Fault::SlowDown));
    let answer = edge.get("/b.js", &[]).await;
    assert_eq!(
        (answer.status, answer.text()),
        (200, "kept"),
        "{}",
        status(&answer)
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_holds_after_a_restart() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    for key in ["a.js", "b.js"] {
        bucket.put(key, "old", "max-age=600").await;
    }
    let edge = start(&bucket, folder.path()).await;
    for path in ["/a.js", "/b.js"] {
        edge.get(path, &[]).await;
    }
    settle(&edge).await;
    bucket.put("a.js", "new", "max-age=600").await;
    edge.purge(url("/a.js"));
    edge.stop().await;
    let edge = start(&bucket, folder.path()).await;
    assert_eq!(edge.get("/a.js", &[]).await.text(), "new");
    let other = edge.get("/b.js", &[]).await;
    assert_eq!(
        (other.text(), status(&other).ends_with("; detail=disk")),
        ("old", true)
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_a_large_body_come_from_the_disk_and_from_what_has_come_so_far() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    let whole = body(7, LARGE);
    bucket.put("large.bin", whole.clone(), "max-age=600").await;
    let edge = start(&bucket, folder.path()).await;
    let barrier = Barrier::new();
    bucket.fault(
        Rule::new(Fault::HoldUntil(barrier.clone()))
            .key("large.bin")
            .times(1),
    );
    let ask = async |range: &str| match range {
        "" => edge.get("/large.bin", &[]).await,
        range => edge.get("/large.bin", &[("range", range)]).await,
    };
    // Both wait for the one fetch, and each gets its own part.
    let release = async {
        bucket.until_asked("large.bin", 1).await;
        barrier.release();
    };
    let (first, second, ()) = tokio::join!(ask("bytes=0-99999"), ask("bytes=1500000-1999999"), release);
    assert_eq!((first.status, second.status), (206, 206));
    assert!(first.body == whole[..100_000] && second.body == whole[1_500_000..2_000_000]);
    settle(&edge).await;
    for (range, part) in [
        ("bytes=0-0", &whole[..1]),
        ("bytes=65535-65536", &whole[65_535..65_537]),
        ("bytes=2999999-", &whole[LARGE - 1..]),
        ("bytes=-70000", &whole[LARGE - 70_000..]),
        ("", &whole[..]),
    ] {
        let answer = ask(range).await;
        assert!(answer.body == *part, "{range}");
        assert!(
            status(&answer).ends_with("; detail=disk"),
            "{range}: {}",
            status(&answer)
        );
    }
    assert_eq!(ask("bytes=9000000-").await.status, 416);
    assert_eq!(bucket.asked("large.bin").len(), 1, "it was fetched once");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_no_room_to_read_from_the_disk_waits_for_its_turn() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    // Some are read into memory, and some stream from the disk.
    let bodies: Vec<_> = (0..8)
        .map(|n| (format!("/{n}.bin"), body(n, if n < 4 { 200_000 } else { LARGE })))
        .collect();
    let edge = start(&bucket, folder.path()).await;
    for (path, body) in &bodies {
        bucket.put(&path[1..], body.clone(), "max-age=600").await;
        edge.get(path, &[]).await;
    }
    settle(&edge).await;
    edge.stop().await;
    let asked = bucket.log().len();
    let with_patience = |room_patience| {
        let on_disk = on_disk(folder.path());
        TestEdge::start_with(&bucket, "", "", move |config| {
            on_disk(config);
            config.cache.room_patience = room_patience;
        })
    };
    let edge = with_patience(PATIENT).await;
    let budget = edge.exchange().cache().budget.clone();
    let full = budget.count(budget.capacity());
    let answers = all(bodies.iter().map(|(path, _)| edge.get(path, &[])).collect());
    let release = async {
        edge.until("all to wait", || budget.waiting() == 8).await;
        drop(full);
    };
    let (answers, ()) = tokio::join!(answers, release);
    for (answer, (path, body)) in answers.iter().zip(&bodies) {
        assert!(answer.body == *body, "{path}: {}", answer.head);
        assert!(
            status(answer).ends_with("; detail=disk"),
            "{path}: {}",
            status(answer)
        );
    }
    assert_eq!(edge.metric("edge_no_room_total"), 0);
    edge.stop().await;
    // A turn that does not come is told of; what memory has needs no room.
    let edge = with_patience(Duration::from_secs(1)).await;
    for path in ["/1.bin", "/7.bin"] {
        assert!(
            status(&edge.get(path, &[]).await).ends_with("; detail=disk"),
            "{path}"
        );
    }
    let budget = edge.exchange().cache().budget.clone();
    let full = budget.count(budget.capacity());
    let (late, small) = tokio::join!(edge.get("/7.bin", &[]), edge.get("/1.bin", &[]));
    assert_eq!((late.status, late.field("retry-after")), (503, Some("1")));
    assert!(small.body == bodies[1].1);
    assert_eq!(edge.metric("edge_no_room_total"), 1);
    drop(full);
    let again = edge.get("/7.bin", &[]).await;
    assert!(again.body == bodies[7].1);
    assert!(status(&again).ends_with("; detail=disk"), "{}", status(&again));
    assert_eq!(bucket.log().len(), asked, "the bucket is not asked again");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_body_is_taken_up_from_the_origin_where_it_breaks() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    let whole = body(9, LARGE);
    bucket.put("large.bin", whole.clone(), "max-age=600").await;
    for place in [100, 1_700_000, LARGE - 10] {
        bucket.faults().clear();
        let edge = start(&bucket, folder.path()).await;
        assert!(edge.get("/large.bin", &[]).await.body == whole);
        settle(&edge).await;
        let file = files(folder.path(), ".body").pop().unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[place] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let asked = bucket.asked("large.bin").len();
        let answer = edge.get("/large.bin", &[]).await;
        assert!(answer.body == whole, "flipped at {place}");
        assert_eq!(
            bucket.asked("large.bin").len(),
            asked + 1,
            "the rest was asked for"
        );
        assert_eq!(edge.metric("edge_disk_damaged_total{what=\"body\"}"), 1);
        let again = edge.get("/large.bin", &[]).await;
        assert!(
            again.body == whole && status(&again).contains("fwd=uri-miss"),
            "{}",
            status(&again)
        );
        settle(&edge).await;
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_body_that_the_origin_has_changed_never_ends_cleanly() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    bucket.put("large.bin", body(1, LARGE), "max-age=600").await;
    let edge = start(&bucket, folder.path()).await;
    edge.get("/large.bin", &[]).await;
    settle(&edge).await;
    let file = files(folder.path(), ".body").pop().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[2_000_000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    bucket.put("large.bin", body(2, LARGE), "max-age=600").await;
    let mut client = edge.client().await;
    client
        .send(crate::support::request("GET", "/large.bin", &[]))
        .await;
    assert_eq!(client.head().await.unwrap().status, 200);
    let broken = client.rest().await;
    assert!(
        broken.len() < LARGE && body(1, LARGE).starts_with(&broken),
        "{}",
        broken.len()
    );
    assert!(edge.get("/large.bin", &[]).await.body == body(2, LARGE));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_fails_no_answer() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    let edge = start(&bucket, folder.path()).await;
    edge.exchange()
        .cache()
        .disk
        .as_ref()
        .unwrap()
        .faults()
        .add(DiskFault {
            op: Op::Write,
            name: "",
            failing: Failing::Error(ENOSPC),
            after: 5,
            times: u32::MAX,
        });
    for n in 0..10 {
        let (small, large) = (format!("{n}.js"), format!("{n}.bin"));
        bucket.put(&small, body(n, 20_000), "max-age=600").await;
        bucket.put(&large, body(n, LARGE), "max-age=600").await;
        let (small, large) = (format!("/{small}"), format!("/{large}"));
        let answers = all(vec![
            edge.get(&small, &[]),
            edge.get(&large, &[]),
            edge.get(&large, &[]),
        ])
        .await;
        assert!(answers[0].body == body(n, 20_000), "{n}");
        assert!(
            answers[1].body == body(n, LARGE) && answers[2].body == body(n, LARGE),
            "{n}"
        );
    }
    assert!(edge.metric("edge_disk_errors_total{operation=\"write\"}") > 0);
    assert_eq!(edge.metric("edge_disk_working"), 0);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_more_files_can_be_open_answers_come_from_the_origin_and_the_cache_stays() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    bucket.put("small.js", body(1, 20_000), "max-age=600").await;
    bucket.put("large.bin", body(2, LARGE), "max-age=600").await;
    let expected = [("/small.js", body(1, 20_000)), ("/large.bin", body(2, LARGE))];
    let edge = start(&bucket, folder.path()).await;
    for (path, body) in &expected {
        assert!(edge.get(path, &[]).await.body == *body, "{path}");
    }
    settle(&edge).await;
    edge.stop().await;
    let edge = start(&bucket, folder.path()).await;
    let disk = edge.exchange().cache().disk.clone().unwrap();
    for name in [".log", ".body"] {
        disk.faults().add(DiskFault {
            op: Op::Open,
            name,
            failing: Failing::Error(EMFILE),
            after: 0,
            times: u32::MAX,
        });
    }
    for (path, body) in &expected {
        let answer = edge.get(path, &[]).await;
        assert!(answer.status == 200 && answer.body == *body, "{path}");
    }
    edge.until("the fetches", || edge.exchange().cache().flights.is_empty())
        .await;
    for what in ["body", "file", "record"] {
        let damaged = edge.metric(&format!("edge_disk_damaged_total{{what=\"{what}\"}}"));
        assert_eq!(damaged, 0, "{what}");
    }
    assert!(edge.metric("edge_disk_errors_total{operation=\"read\"}") > 0);
    disk.faults().clear();
    edge.stop().await;
    // What it had is still there.
    let asked = bucket.log().len();
    let edge = start(&bucket, folder.path()).await;
    let answer = edge.get("/large.bin", &[]).await;
    assert!(
        answer.body == body(2, LARGE) && status(&answer).ends_with("; detail=disk"),
        "{}",
        status(&answer)
    );
    assert_eq!(bucket.log().len(), asked);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_holds_up_no_answer_from_memory_and_fails_none() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    bucket.put("hot.js", "script", "max-age=600").await;
    bucket.put("cold.bin", body(4, LARGE), "max-age=600").await;
    let on_disk = on_disk(folder.path());
    let edge = TestEdge::start_with(&bucket, "", "", move |config| {
        on_disk(config);
        config.cache.disk.as_mut().unwrap().patience = Duration::from_secs(2);
    })
    .await;
    assert_eq!(edge.get("/hot.js", &[]).await.text(), "script");
    assert!(edge.get("/cold.bin", &[]).await.body == body(4, LARGE));
    settle(&edge).await;
    let disk = edge.exchange().cache().disk.clone().unwrap();
    for op in [Op::Write, Op::Read, Op::Open] {
        disk.faults().add(DiskFault {
            op,
            name: "",
            failing: Failing::Hang,
            after: 0,
            times: u32::MAX,
        });
    }
    // More than its queue takes: what is beyond is left out, and nobody waits for it.
    for n in 0..20 {
        let name = format!("{n}.png");
        bucket.put(&name, body(n, 100_000), "max-age=600").await;
        assert!(
            edge.get(&format!("/{name}"), &[]).await.body == body(n, 100_000),
            "{n}"
        );
        let hit = edge.get("/hot.js", &[]).await;
        assert!(status(&hit).contains("; hit"), "{}", status(&hit));
    }
    assert!(edge.metric("edge_disk_skipped_total{reason=\"queue-full\"}") > 0);
    // What only the disk has is taken from the origin when the disk does not answer.
    let cold = edge.get("/cold.bin", &[]).await;
    assert!(cold.status == 200 && cold.body == body(4, LARGE));
    let hit = edge.get("/hot.js", &[]).await;
    assert!(status(&hit).contains("; hit"), "{}", status(&hit));
    disk.faults().clear();
    settle(&edge).await;
    assert!(edge.get("/cold.bin", &[]).await.body == body(4, LARGE));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_in_place_of_a_file_of_the_cache_is_a_miss() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    bucket.put("large.bin", body(3, LARGE), "max-age=600").await;
    bucket.put("small.js", "script", "max-age=600").await;
    let edge = start(&bucket, folder.path()).await;
    edge.get("/large.bin", &[]).await;
    edge.get("/small.js", &[]).await;
    settle(&edge).await;
    edge.stop().await;
    for ending in [".log", ".body"] {
        for file in files(folder.path(), ending) {
            std::fs::remove_file(&file).unwrap();
            std::fs::create_dir(&file).unwrap();
        }
    }
    let edge = start(&bucket, folder.path()).await;
    for _ in 0..2 {
        assert!(edge.get("/large.bin", &[]).await.body == body(3, LARGE));
        assert_eq!(edge.get("/small.js", &[]).await.text(), "script");
        settle(&edge).await;
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_used_leaves_a_node_that_serves_from_memory() {
    let (bucket, folder) = (TestBucket::start().await, TempDir::new().unwrap());
    bucket.put("a.js", "script", "max-age=600").await;
    let missing = folder.path().join("not").join("there");
    let edge = start(&bucket, &missing).await;
    assert!(edge.exchange().cache().disk.is_none());
    assert_eq!(edge.get("/a.js", &[]).await.text(), "script");
    assert!(status(&edge.get("/a.js", &[]).await).starts_with("portico; hit"));
    edge.stop().await;
}
