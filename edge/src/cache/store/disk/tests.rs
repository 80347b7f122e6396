//! The disk tier as a whole: what is written comes back, or nothing does; and every fault of a disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::meta::tests::head;
use super::*;
use crate::cache::epoch::{Position, Purge, Standing, Url};
use crate::cache::store::{Budget, Content, Dressed, Form, Head};
use crate::clock::Timestamp;
use crate::representation::coding::Coding;

const MIB: u64 = 1024 * 1024;

/// Longer than any disk takes that does not hang.
const LONG: Duration = Duration::from_secs(60);

/// A folder, and the tier upon it.
struct Lab {
    dir: TempDir,
    size: u64,
    clock: Clock,
    faults: Arc<Faults>,
    memory: Memory,
    patience: Duration,
}

impl Lab {
    fn new() -> Self {
        Self::of_size(64 * MIB)
    }

    fn of_size(size: u64) -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            size,
            clock: Clock::manual(Timestamp::from_unix_seconds(1_800_000_000)),
            faults: Arc::default(),
            memory: Memory::new(Budget::with_patience(256 * MIB, LONG), &Registry::default()),
            patience: LONG,
        }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn try_open(&self) -> Result<Disk, OpenError> {
        self.open_at(&self.folder())
    }

    fn open_at(&self, path: &Path) -> Result<Disk, OpenError> {
        let options = Options {
            path,
            size: self.size,
            promoted_max: 2 * MIB,
            patience: self.patience,
        };
        let registry = Registry::default();
        Disk::open(
            &options,
            &self.memory,
            self.clock.clone(),
            &registry,
            Arc::clone(&self.faults),
        )
    }

    fn open(&self) -> Disk {
        self.try_open().unwrap()
    }

    /// The folder as a crash would leave it now: a copy, opened by another.
    fn crashed(&self) -> Disk {
        let copy = self.dir.path().join(format!("crashed-{}", fastrand::u64(..)));
        std::fs::create_dir(&copy).unwrap();
        for entry in std::fs::read_dir(self.folder()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        self.open_at(&copy).unwrap()
    }

    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.folder())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().ends_with(ending))
            .collect();
        files.sort();
        files
    }
}

fn key(n: usize) -> Key {
    Key::new("assets", "cdn.example", &format!("/{n}.js"), None)
}

fn body(n: usize, length: usize) -> Bytes {
    (0..length).map(|at| (at / 251 + at * 7 + n * 13) as u8).collect()
}

fn at(position: u64) -> Arc<Head> {
    Arc::new(Head {
        position: Position::from_number(position),
        ..head()
    })
}

fn response(forms: &[(Coding, &'static str, Bytes)]) -> Arc<StoredResponse> {
    response_at(0, forms)
}

fn response_at(position: u64, forms: &[(Coding, &'static str, Bytes)]) -> Arc<StoredResponse> {
    let forms = forms.iter().map(|(coding, suffix, body)| {
        Arc::new(Form {
            coding: *coding,
            suffix,
            body: Content::Memory(body.clone()),
            etag: None,
            dressed: Dressed::default(),
            improvable: false,
        })
    });
    Arc::new(StoredResponse::with_forms(at(position), forms.collect()))
}

fn plain(body: Bytes) -> Arc<StoredResponse> {
    response(&[(Coding::Identity, "", body)])
}

/// The bytes of a form, wherever they are; `None` when they cannot be had.
async fn bytes(content: &Content) -> Option<Vec<u8>> {
    match content {
        Content::Memory(bytes) => Some(bytes.to_vec()),
        Content::Disk(on_disk) => read(on_disk, 0).await.ok(),
    }
}

async fn read(on_disk: &OnDisk, first: u64) -> Result<Vec<u8>, Unreadable> {
    let (mut reader, mut all) = (on_disk.reader(), Vec::new());
    while let Some(chunk) = reader.read(first + all.len() as u64).await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// What is stored under the key, if anything is: the bytes of its first form.
async fn loaded(disk: &Disk, key: &Key) -> Option<Vec<u8>> {
    let loaded = disk.load(key).await.pop()?;
    bytes(&loaded.forms.first()?.1).await
}

#[tokio::test]
async fn what_is_written_is_found_again_after_an_end_and_after_a_crash() {
    let lab = Lab::new();
    let disk = lab.open();
    let lengths = [0, 1, 65_535, 65_536, 65_537, 300_000, 5_000_000];
    for (n, length) in lengths.into_iter().enumerate() {
        disk.offer(&key(n), &plain(body(n, length)));
    }
    let coded = [
        (Coding::Identity, "", body(50, 100_000)),
        (Coding::Br, "br11", body(51, 30_000)),
        (Coding::Gzip, "gzip9", body(52, 40_000)),
    ];
    disk.offer(&key(50), &response(&coded));
    // Before the log is closed, as a crash finds it.
    while disk.totals().entries < 8 {
        tokio::task::yield_now().await;
    }
    let crashed = lab.crashed();
    disk.close(LONG).await;
    for disk in [crashed, lab.open()] {
        assert_eq!(disk.totals().entries, 8);
        for (n, length) in lengths.into_iter().enumerate() {
            assert!(
                loaded(&disk, &key(n)).await.unwrap() == body(n, length),
                "{length}"
            );
        }
        let found = disk.load(&key(50)).await.pop().unwrap();
        for ((at, content), (coding, suffix, body)) in found.forms.iter().zip(&coded) {
            assert_eq!((at.coding, at.suffix), (*coding, *suffix));
            assert!(bytes(content).await.unwrap() == *body);
        }
        assert_eq!(found.forms.len(), 3);
        assert_eq!(disk.totals().sites[0].entries, 8);
        assert!(loaded(&disk, &key(99)).await.is_none());
        disk.close(LONG).await;
    }
}

#[tokio::test]
async fn whatever_happens_to_the_files_no_wrong_byte_comes_back() {
    let seed = std::env::var("EDGE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("EDGE_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let lengths = [
        10, 2_000, 70_000, 200_000, 10, 2_000, 70_000, 300_000, 10, 2_000, 1_100_000, 2_200_000,
    ];
    let whole: Vec<Bytes> = (0..).zip(lengths).map(|(n, length)| body(n, length)).collect();
    let mut served = 0;
    for _ in 0..25 {
        let lab = Lab::new();
        let disk = lab.open();
        for (n, body) in whole.iter().enumerate() {
            disk.offer(&key(n), &plain(body.clone()));
        }
        disk.close(LONG).await;
        let mut files = lab.files(".log");
        files.extend(lab.files(".body"));
        damage(&mut random, &files);
        let disk = lab.open();
        for (n, body) in whole.iter().enumerate() {
            if let Some(found) = loaded(&disk, &key(n)).await {
                assert!(found == *body, "{n} is wrong");
                served += 1;
            }
        }
        let verified = disk.verify();
        assert_eq!(disk.verify().damaged, 0, "{verified:?}");
        disk.close(LONG).await;
    }
    assert!(
        served > 100,
        "damage takes what it hits, and not all: {served} of 300"
    );
}

/// Flips bits, truncates, swaps, deletes or fills with zeros.
fn damage(random: &mut fastrand::Rng, files: &[PathBuf]) {
    let file = &files[random.usize(..files.len())];
    let mut bytes = std::fs::read(file).unwrap();
    let at = random.usize(..bytes.len());
    match random.u8(..6) {
        0 => {
            for _ in 0..random.usize(1..8) {
                let at = random.usize(..bytes.len());
                bytes[at] ^= 1 << random.u8(..8);
            }
        }
        1 => bytes.truncate(at),
        2 => {
            let other = &files[random.usize(..files.len())];
            let others = std::fs::read(other).unwrap();
            std::fs::write(other, &bytes).unwrap();
            bytes = others;
        }
        3 => return std::fs::remove_file(file).unwrap(),
        4 => {
            let end = (at + random.usize(1..200_000)).min(bytes.len());
            bytes[at..end].fill(0);
        }
        _ => {
            std::fs::remove_file(file).unwrap();
            return std::fs::create_dir(file).unwrap();
        }
    }
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn verification_finds_every_damaged_body_and_drops_it() {
    let lab = Lab::new();
    let disk = lab.open();
    for n in 0..10 {
        disk.offer(&key(n), &plain(body(n, 3_000_000)));
    }
    disk.flush().await;
    assert_eq!((disk.verify().entries, disk.verify().damaged), (10, 0));
    for file in lab.files(".body").iter().take(3) {
        let mut bytes = std::fs::read(file).unwrap();
        bytes[1_000_000] ^= 1;
        std::fs::write(file, bytes).unwrap();
    }
    let verified = disk.verify();
    assert_eq!(
        (verified.entries, verified.damaged, verified.bytes),
        (7, 3, 21_000_000)
    );
    assert_eq!(disk.totals().entries, 7);
    assert_eq!(lab.files(".body").len(), 7, "their files are gone");
}

#[tokio::test]
async fn what_was_removed_stays_away() {
    let lab = Lab::new();
    let disk = lab.open();
    disk.offer(&key(1), &plain(body(1, 1000)));
    disk.offer(&key(2), &plain(body(2, 2_000_000)));
    disk.flush().await;
    // One that is stored, one whose body is a file, and one that still waits to be written.
    disk.offer(&key(3), &plain(body(3, 1000)));
    for n in 1..=3 {
        disk.remove(&key(n));
    }
    disk.offer(&key(4), &plain(body(4, 1000)));
    disk.flush().await;
    assert_eq!(lab.files(".body").len(), 0);
    for disk in [disk.clone(), lab.crashed()] {
        for n in 1..=3 {
            assert!(disk.load(&key(n)).await.is_empty(), "{n}");
        }
        assert!(loaded(&disk, &key(4)).await.is_some());
    }
}

#[tokio::test]
async fn a_newer_response_takes_the_place_of_the_older() {
    let lab = Lab::new();
    let disk = lab.open();
    for n in 0..5 {
        disk.offer(&key(1), &plain(body(n, 1_500_000)));
    }
    disk.flush().await;
    for disk in [disk.clone(), lab.crashed()] {
        assert_eq!(disk.load(&key(1)).await.len(), 1);
        assert!(loaded(&disk, &key(1)).await.unwrap() == body(4, 1_500_000));
    }
    assert_eq!(lab.files(".body").len(), 1, "the older bodies are gone");
}

#[tokio::test]
async fn the_files_stay_within_their_size_and_what_is_read_stays() {
    let lab = Lab::of_size(16 * MIB);
    let disk = lab.open();
    let hot = key(1_000_000);
    disk.offer(&hot, &plain(body(0, 50_000)));
    let large = key(1_000_001);
    disk.offer(&large, &plain(body(0, 600_000)));
    for n in 0..2_000 {
        // As when it is asked for again: a full disk takes nothing at the first time.
        disk.offer_again(&key(n), &plain(body(n, 30_000)));
        if n % 50 == 0 {
            disk.flush().await;
            assert!(loaded(&disk, &hot).await.is_some(), "{n}");
            let bytes: u64 = ["log", "body"]
                .iter()
                .flat_map(|ending| lab.files(ending))
                .map(|path| path.metadata().map_or(0, |file| file.len()))
                .sum();
            assert!(bytes <= 16 * MIB, "{bytes} after {n}");
        }
    }
    disk.flush().await;
    assert!(loaded(&disk, &hot).await.unwrap() == body(0, 50_000));
    assert!(
        loaded(&disk, &key(0)).await.is_none(),
        "the oldest that nobody asked for is gone"
    );
    assert!(loaded(&disk, &key(1_999)).await.is_some());
    let once = key(5_000);
    disk.offer(&once, &plain(body(1, 1000)));
    disk.flush().await;
    assert!(
        loaded(&disk, &once).await.is_none(),
        "a full disk waits for the second time"
    );
}

#[tokio::test]
async fn a_body_streams_in_and_is_read_while_it_comes_from_any_byte() {
    let lab = Lab::new();
    let disk = lab.open();
    let whole = body(1, 3_000_000);
    for length in [Some(3_000_000), None] {
        let mut fill = disk.fill(length).await.unwrap();
        let growing = fill.body(length);
        let reading = async { (read(&growing, 0).await, read(&growing, 2_500_001).await) };
        let writing = async {
            for chunk in whole.chunks(100_001) {
                assert_eq!(fill.write(Bytes::copy_from_slice(chunk)).await, Taken::On);
            }
            fill.finish(&key(1), &at(0)).await.unwrap()
        };
        let ((all, tail), stored) = tokio::join!(reading, writing);
        assert!(all.unwrap() == whole);
        assert!(tail.unwrap() == whole[2_500_001..]);
        for first in [0, 1, 65_535, 65_536, 262_144, 2_999_999, 3_000_000] {
            assert!(
                read(&stored, first).await.unwrap() == whole[first as usize..],
                "{first}"
            );
        }
        assert!(loaded(&lab.crashed(), &key(1)).await.unwrap() == whole);
    }
    assert_eq!(lab.files(".body").len(), 1);
}

#[tokio::test]
async fn a_body_comes_at_several_places_and_what_is_left_of_it_is_told() {
    const CHUNK: usize = 65_536;
    let lab = Lab::new();
    let disk = lab.open();
    let whole = body(1, 3_000_000);
    let part = |first: usize, end: usize| whole.slice(first..end);
    let mut fill = disk.fill(Some(3_000_000)).await.unwrap();
    let growing = fill.body(Some(3_000_000));
    let mut far = fill.places().begin(2_000_000).unwrap();
    let begins = 30 * CHUNK;
    assert_eq!((far.first(), far.limit()), (begins as u64, None));
    assert!(
        fill.places().begin(2_000_000).is_none(),
        "it begins there already"
    );
    assert_eq!(far.write(part(begins, 3_000_000)).await, Taken::On);
    far.close().await;
    assert!(growing.is_near(2_999_999, 0) && !growing.is_near(1_900_000, 0));
    let middle = fill.places().begin(1_000_000).unwrap();
    let from = 15 * CHUNK;
    assert_eq!(
        (middle.first(), middle.limit()),
        (from as u64, Some(begins as u64))
    );
    // From the beginning it comes up to where that began, and that is left before anything has come.
    assert_eq!(fill.write(whole.clone()).await, Taken::Met);
    drop(middle);
    let (first, end) = (from as u64, begins as u64);
    assert_eq!(fill.rest().await, Rest::Gap { first, end });
    let mut middle = fill.places().begin(1_300_000).unwrap();
    let within = middle.first() as usize;
    assert_eq!(middle.write(part(within, begins)).await, Taken::Met);
    drop(middle);
    assert_eq!(fill.write(part(from, 3_000_000)).await, Taken::Met);
    assert_eq!(fill.rest().await, Rest::Nothing);
    let stored = fill.finish(&key(1), &at(0)).await.unwrap();
    assert!(read(&stored, 0).await.unwrap() == whole);
    assert!(read(&growing, 2_500_000).await.unwrap() == whole[2_500_000..]);
    assert!(loaded(&lab.crashed(), &key(1)).await.unwrap() == whole);
}

#[tokio::test]
async fn a_body_with_a_gap_is_never_stored() {
    let lab = Lab::new();
    let disk = lab.open();
    let whole = body(1, 3_000_000);
    let mut fill = disk.fill(Some(3_000_000)).await.unwrap();
    let mut far = fill.places().begin(2_000_000).unwrap();
    let begins = far.first() as usize;
    assert_eq!(far.write(whole.slice(begins..)).await, Taken::On);
    far.close().await;
    assert_eq!(fill.write(whole.slice(..1_000_000)).await, Taken::On);
    let places = fill.places();
    assert!(fill.finish(&key(1), &at(0)).await.is_none());
    assert!(places.begin(1_500_000).is_none(), "it is given up");
    disk.flush().await;
    assert_eq!((disk.totals().entries, lab.files(".body").len()), (0, 0));
}

#[tokio::test]
async fn a_body_that_does_not_come_whole_is_never_seen() {
    let lab = Lab::new();
    let disk = lab.open();
    let mut fill = disk.fill(Some(3_000_000)).await.unwrap();
    let growing = fill.body(Some(3_000_000));
    assert_eq!(fill.write(body(1, 1_000_000)).await, Taken::On);
    assert_eq!(lab.crashed().totals().entries, 0);
    let before = disk.totals().bytes;
    drop(fill);
    assert_eq!(read(&growing, 0).await, Err(Unreadable::Gone));
    disk.flush().await;
    assert_eq!(lab.files(".body").len(), 0);
    assert!(disk.totals().bytes < before, "what was set aside is given back");
    let crashed = lab.crashed();
    assert_eq!(crashed.totals().entries, 0);
}

#[tokio::test]
async fn a_disk_that_fails_loses_nothing_that_it_had_and_is_tried_again() {
    for failing in [
        Failing::Error(ENOSPC),
        Failing::Error(EIO),
        Failing::Short(100),
        Failing::Torn(100),
    ] {
        let lab = Lab::new();
        let disk = lab.open();
        disk.offer(&key(1), &plain(body(1, 10_000)));
        disk.flush().await;
        lab.faults.add(Fault {
            op: Op::Write,
            name: ".log",
            failing,
            after: 1,
            times: 1,
        });
        disk.offer(&key(2), &plain(body(2, 10_000)));
        disk.flush().await;
        let torn = matches!(failing, Failing::Torn(_));
        assert_eq!(disk.totals().working, torn, "{failing:?}");
        if let Some(found) = loaded(&disk, &key(2)).await {
            panic!("{} bytes of what was never written", found.len());
        }
        lab.faults.clear();
        disk.offer(&key(3), &plain(body(3, 10_000)));
        disk.flush().await;
        assert_eq!(
            loaded(&disk, &key(3)).await.is_some(),
            torn,
            "it rests for ten seconds"
        );
        lab.clock.advance(Duration::from_secs(11));
        disk.offer(&key(4), &plain(body(4, 10_000)));
        disk.flush().await;
        for disk in [disk.clone(), lab.crashed()] {
            assert!(loaded(&disk, &key(1)).await.unwrap() == body(1, 10_000));
            assert!(loaded(&disk, &key(2)).await.is_none());
            assert!(
                loaded(&disk, &key(4)).await.unwrap() == body(4, 10_000),
                "{failing:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_large_body_that_cannot_be_written_on_tells_its_readers() {
    for failing in [Failing::Error(ENOSPC), Failing::Error(EIO), Failing::Short(1000)] {
        let lab = Lab::new();
        let disk = lab.open();
        lab.faults.add(Fault {
            op: Op::Write,
            name: ".body",
            failing,
            after: 3,
            times: 1,
        });
        let mut fill = disk.fill(Some(3_000_000)).await.unwrap();
        let growing = fill.body(Some(3_000_000));
        assert_eq!(fill.write(body(1, 3_000_000)).await, Taken::Failed, "{failing:?}");
        drop(fill);
        assert_eq!(read(&growing, 0).await, Err(Unreadable::Gone));
        assert!(disk.fill(Some(3_000_000)).await.is_none(), "it rests");
        disk.flush().await;
        assert_eq!(lab.files(".body").len(), 0);
    }
}

#[tokio::test]
async fn a_body_that_has_come_whole_ends_well_although_the_disk_cannot_keep_it() {
    let lab = Lab::new();
    let disk = lab.open();
    // Nobody knows where it ends until it does.
    let mut fill = disk.fill(None).await.unwrap();
    assert_eq!(fill.write(body(1, 700_000)).await, Taken::On);
    let mut reader = fill.body(None).reader();
    let mut had = reader.read(0).await.unwrap().unwrap().to_vec();
    lab.faults.add(Fault {
        op: Op::Write,
        name: ".log",
        failing: Failing::Error(ENOSPC),
        after: 0,
        times: 1,
    });
    assert!(fill.finish(&key(1), &at(1)).await.is_none());
    while let Some(bytes) = reader.read(had.len() as u64).await.unwrap() {
        had.extend_from_slice(&bytes);
    }
    assert!(had == body(1, 700_000));
    assert!(loaded(&disk, &key(1)).await.is_none());
    disk.flush().await;
    assert_eq!(lab.files(".body").len(), 0);
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_gives_nothing() {
    let lab = Lab::new();
    let disk = lab.open();
    disk.offer(&key(1), &plain(body(1, 10_000)));
    disk.flush().await;
    lab.faults.add(Fault {
        op: Op::Read,
        name: ".log",
        failing: Failing::Error(EIO),
        after: 0,
        times: 1,
    });
    assert!(disk.load(&key(1)).await.is_empty());
    assert_eq!(disk.totals().entries, 0, "it is fetched again");
}

#[test]
fn a_folder_that_cannot_be_used_says_why() {
    let check = |prepare: &dyn Fn(&Lab), expected: &str| {
        let lab = Lab::new();
        prepare(&lab);
        let error = lab.try_open().expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(
        &|lab| std::fs::write(lab.folder(), "").unwrap(),
        "is not a folder",
    );
    check(
        &|lab| std::fs::remove_dir(lab.dir.path()).unwrap(),
        "is the disk mounted",
    );
    let fault = |code| {
        move |lab: &Lab| {
            lab.faults.add(Fault {
                op: Op::Open,
                name: "lock",
                failing: Failing::Error(code),
                after: 0,
                times: 1,
            });
        }
    };
    check(&fault(13), "owner and mode");
    check(&fault(EROFS), "read-only");
    check(&fault(ENOSPC), "is full");
}

#[tokio::test]
async fn two_processes_do_not_share_a_folder() {
    let lab = Lab::new();
    let disk = lab.open();
    let error = lab.try_open().unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    disk.close(LONG).await;
    drop(lab.open());
}

#[tokio::test]
async fn another_format_is_set_aside_and_a_lost_identity_starts_empty() {
    let lab = Lab::new();
    let disk = lab.open();
    disk.offer(&key(1), &plain(body(1, 1000)));
    disk.close(LONG).await;
    let identity = lab.folder().join("portico-cache");
    let mut bytes = std::fs::read(&identity).unwrap();
    bytes[8] = 9;
    let (covered, crc) = bytes.split_last_chunk_mut::<4>().unwrap();
    *crc = crc32fast::hash(covered).to_le_bytes();
    std::fs::write(&identity, bytes).unwrap();
    let disk = lab.open();
    assert_eq!(disk.totals().entries, 0);
    assert!(lab.folder().join("set-aside/0000000001.log").exists());
    disk.offer(&key(1), &plain(body(1, 1000)));
    disk.close(LONG).await;
    std::fs::write(&identity, "no identity").unwrap();
    let disk = lab.open();
    assert_eq!(disk.totals().entries, 0);
    assert!(lab.files(".log").is_empty(), "what nobody can read is removed");
}

#[tokio::test]
async fn leftovers_are_swept_and_strangers_left_alone() {
    let lab = Lab::new();
    lab.open().close(LONG).await;
    for name in [
        "0000000007.body",
        "purges.a.new",
        "0000000009.log",
        "notes.txt",
        "12.log",
    ] {
        std::fs::write(lab.folder().join(name), "leftover").unwrap();
    }
    let disk = lab.open();
    for (name, stays) in [
        ("0000000007.body", false),
        ("purges.a.new", false),
        ("0000000009.log", false),
        ("notes.txt", true),
        ("12.log", true),
    ] {
        assert_eq!(lab.folder().join(name).exists(), stays, "{name}");
    }
    drop(disk);
}

#[tokio::test]
async fn a_clock_that_was_set_back_makes_what_is_stored_just_stale() {
    for (step, stale) in [(-400 * 86_400, true), (2 * 86_400, false)] {
        let lab = Lab::new();
        let disk = lab.open();
        let mut written = head();
        written.response_time = lab.clock.now();
        written.initial_age = Duration::ZERO;
        let forms = vec![Arc::new(Form {
            coding: Coding::Identity,
            suffix: "",
            body: Content::Memory(body(1, 10)),
            etag: None,
            dressed: Dressed::default(),
            improvable: false,
        })];
        disk.offer(
            &key(1),
            &Arc::new(StoredResponse::with_forms(Arc::new(written), forms)),
        );
        disk.close(LONG).await;
        let now = Timestamp::from_unix_seconds(lab.clock.now().unix_seconds() + step);
        let lab = Lab {
            clock: Clock::manual(now),
            ..lab
        };
        let disk = lab.open();
        let found = disk.load(&key(1)).await.pop().unwrap().head;
        assert!(found.response_time <= now);
        assert_eq!(found.initial_age >= found.lifetime.fresh, stale, "{step}");
    }
}

fn url(n: usize) -> Purge {
    Purge {
        urls: vec![Url {
            host: "cdn.example".into(),
            path: format!("/{n}.js"),
            query: None,
        }],
        ..Purge::default()
    }
}

#[tokio::test]
async fn purges_on_record_hold_after_a_crash_whatever_happens_to_one_copy() {
    let ruin: [&dyn Fn(&Path); 6] = [
        &|_| {},
        &|file| std::fs::remove_file(file).unwrap(),
        &|file| std::fs::write(file, "").unwrap(),
        &|file| {
            let bytes = std::fs::read(file).unwrap();
            std::fs::write(file, &bytes[..bytes.len() - 30]).unwrap();
        },
        &|file| {
            let mut bytes = std::fs::read(file).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(file, bytes).unwrap();
        },
        &|file| {
            let bytes = std::fs::read(file).unwrap();
            std::fs::write(file, vec![0; bytes.len()]).unwrap();
        },
    ];
    for copy in ["purges.a", "purges.b"] {
        for ruin in &ruin {
            let lab = Lab::new();
            let disk = lab.open();
            let epochs = disk.purges().unwrap();
            let before = epochs.last();
            disk.offer(&key(1), &plain(body(1, 10)));
            for n in 1..20 {
                epochs.purge_on_record(&url(n)).unwrap();
            }
            disk.close(LONG).await;
            ruin(&lab.folder().join(copy));
            let disk = lab.open();
            let again = disk.purges().unwrap();
            assert_eq!(again.last(), epochs.last());
            for n in 1..20 {
                assert_eq!(again.judge(&key(n), &[], before), Standing::Purged, "{n}");
            }
            let other = again.judge(&key(50), &[], before);
            assert!(matches!(other, Standing::Valid { .. }), "nothing else is purged");
            disk.close(LONG).await;
        }
    }
}

#[tokio::test]
async fn when_both_copies_are_gone_or_behind_everything_is_purged() {
    let lab = Lab::new();
    let disk = lab.open();
    let epochs = disk.purges().unwrap();
    epochs.purge_on_record(&url(1)).unwrap();
    let fetched = epochs.now();
    let stored = response_at(fetched.number(), &[(Coding::Identity, "", body(1, 10))]);
    disk.offer(&key(7), &stored);
    disk.close(LONG).await;
    for empty in [false, true] {
        for copy in ["purges.a", "purges.b"] {
            let file = lab.folder().join(copy);
            if empty {
                // A record that is sound, and knows of no purge.
                let bytes = std::fs::read(&file).unwrap();
                std::fs::write(&file, &bytes[..32]).unwrap();
            } else {
                std::fs::remove_file(&file).unwrap();
            }
        }
        let disk = lab.open();
        assert_eq!(disk.totals().entries, 1);
        let again = disk.purges().unwrap();
        assert_eq!(again.judge(&key(7), &[], fetched), Standing::Purged, "{empty}");
        let now = again.now();
        assert!(matches!(again.judge(&key(7), &[], now), Standing::Valid { .. }));
        disk.close(LONG).await;
    }
}

#[tokio::test]
async fn a_purge_that_the_disk_does_not_take_is_not_acknowledged_and_holds_all_the_same() {
    let lab = Lab::new();
    let disk = lab.open();
    let epochs = disk.purges().unwrap();
    let before = epochs.now();
    let full = |times| Fault {
        op: Op::Sync,
        name: "",
        failing: Failing::Error(ENOSPC),
        after: 0,
        times,
    };
    lab.faults.add(full(1));
    assert!(epochs.purge_on_record(&url(1)).is_ok(), "one copy is enough");
    lab.faults.clear();
    lab.faults.add(full(2));
    assert!(epochs.purge_on_record(&url(2)).is_err());
    for n in [1, 2] {
        assert_eq!(epochs.judge(&key(n), &[], before), Standing::Purged);
    }
}

#[tokio::test]
async fn where_no_more_files_can_be_open_nothing_is_dropped_and_it_is_read_later() {
    let lab = Lab::new();
    let disk = lab.open();
    let large = body(2, 5_000_000);
    disk.offer(&key(1), &plain(body(1, 1_000)));
    disk.offer(&key(2), &plain(large.clone()));
    disk.flush().await;
    let found = disk.load(&key(2)).await.pop().unwrap();
    let Content::Disk(on_disk) = &found.forms[0].1 else {
        panic!("{found:?}");
    };
    for name in [".log", ".body"] {
        lab.faults.add(Fault {
            op: Op::Open,
            name,
            failing: Failing::Error(EMFILE),
            after: 0,
            times: 100,
        });
    }
    // What is open already can be read on.
    assert!(loaded(&disk, &key(1)).await.unwrap() == body(1, 1_000));
    let logs: Vec<u32> = disk.0.shared.index().logs.keys().copied().collect();
    logs.into_iter()
        .for_each(|log| disk.0.shared.handles.forget_log(log));
    assert!(disk.load(&key(1)).await.is_empty());
    assert_eq!(read(on_disk, 0).await, Err(Unreadable::Slow));
    assert_eq!(disk.verify().damaged, 0);
    assert_eq!(disk.totals().entries, 2);
    lab.faults.clear();
    assert!(loaded(&disk, &key(1)).await.unwrap() == body(1, 1_000));
    assert!(read(on_disk, 0).await.unwrap() == large);
    disk.close(LONG).await;
}

#[tokio::test]
async fn what_the_page_cache_has_is_at_hand_and_proved_like_everything() {
    let lab = Lab::new();
    let disk = lab.open();
    let probe = lab.dir.path().join("probe");
    std::fs::write(&probe, b"x").unwrap();
    let mut byte = [0];
    let read = rustix::io::preadv2(
        std::fs::File::open(&probe).unwrap(),
        &mut [std::io::IoSliceMut::new(&mut byte)],
        0,
        rustix::io::ReadWriteFlags::NOWAIT,
    );
    if read != Ok(1) {
        eprintln!("skipped: the file system here cannot say what the page cache has: {read:?}");
        return;
    }
    let lengths = [1, 20_000, 100_000, 200_000, 2_000_000];
    for (n, length) in lengths.into_iter().enumerate() {
        disk.offer(&key(n), &plain(body(n, length)));
    }
    disk.flush().await;
    // What was written just now is written already, and no log has been opened to be read.
    assert!(disk.at_hand(&key(0)).is_none());
    assert!(loaded(&disk, &key(4)).await.is_some());
    for (n, length) in lengths.into_iter().enumerate() {
        let found = disk.at_hand(&key(n));
        assert_eq!(found.is_some(), length <= 100_000, "{length}");
        if let Some(found) = found {
            assert!(bytes(&found.forms[0].1).await.unwrap() == body(n, length));
        }
    }
    assert!(disk.at_hand(&key(7)).is_none());
    // A fault may be one that waits: then the threads that may wait read.
    lab.faults.add(Fault {
        op: Op::Read,
        name: ".log",
        failing: Failing::Hang,
        after: 0,
        times: 1,
    });
    assert!(disk.at_hand(&key(1)).is_none());
    lab.faults.clear();
    let log = lab.files(".log").pop().unwrap();
    let mut held = std::fs::read(&log).unwrap();
    let at = memchr::memmem::find(&held, &body(1, 20_000)).unwrap();
    held[at + 10_000] ^= 1;
    std::fs::write(&log, held).unwrap();
    assert!(
        disk.at_hand(&key(1)).is_none() && !disk.has(&key(1)),
        "it is dropped"
    );
    assert!(disk.at_hand(&key(2)).is_some());
    disk.close(LONG).await;
}

#[tokio::test]
async fn reads_that_wait_behind_a_disk_that_hangs_keep_no_room() {
    let mut lab = Lab::new();
    lab.patience = Duration::from_secs(2);
    let disk = lab.open();
    for n in 0..40 {
        disk.offer(&key(n), &plain(body(n, 100_000)));
    }
    disk.flush().await;
    let before = lab.memory.budget().used();
    lab.faults.add(Fault {
        op: Op::Read,
        name: ".log",
        failing: Failing::Hang,
        after: 0,
        times: u32::MAX,
    });
    let mut reads = tokio::task::JoinSet::new();
    for n in 0..40 {
        let disk = disk.clone();
        reads.spawn(async move { disk.load(&key(n)).await.len() });
    }
    assert_eq!(reads.join_all().await, [0; 40], "they are misses");
    let held = lab.memory.budget().used() - before;
    assert!(
        held <= READERS as u64 * 2 * 101_000,
        "{held} bytes: more than the threads that hang hold"
    );
    lab.faults.clear();
    // The reads that were given up are still before it.
    let mut found = None;
    for _ in 0..30 {
        found = loaded(&disk, &key(7)).await;
        if found.is_some() {
            break;
        }
    }
    assert!(found.unwrap() == body(7, 100_000));
    disk.close(LONG).await;
}

#[tokio::test]
async fn a_body_is_open_once_for_all_and_not_more_than_so_many_are() {
    let lab = Lab::of_size(4096 * MIB);
    let disk = lab.open();
    // Larger than what is read into memory.
    let whole = body(1, 2 * MIB as usize + 1);
    disk.offer(&key(1), &plain(whole.clone()));
    disk.flush().await;
    let opened = async |key: &Key| {
        let found = disk.load(key).await.pop().unwrap();
        let Content::Disk(on_disk) = &found.forms[0].1 else {
            panic!("{found:?}");
        };
        let mut reader = on_disk.reader();
        reader.read(0).await.unwrap().unwrap();
        reader
    };
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(opened(&key(1)).await);
    }
    assert_eq!(disk.0.shared.handles.len(), 1);
    // The same file under many names: they are as good as many bodies.
    let file = lab.files(".body").pop().unwrap();
    let mut held = Vec::new();
    for n in 0..300 {
        let name = format!("{:010}.body", 100_000 + n);
        std::fs::hard_link(&file, file.with_file_name(name)).unwrap();
        let (handle, is_kept) = disk
            .0
            .shared
            .handles
            .open(&disk.0.shared.io, 100_000 + n)
            .unwrap();
        held.extend(is_kept.then_some(handle));
    }
    assert_eq!((held.len(), disk.0.shared.handles.len()), (223, 224));
    drop(held);
    assert_eq!(disk.0.shared.handles.len(), 1);
    assert!(readers[7].read(2 * MIB).await.unwrap().unwrap() == whole[2 * MIB as usize..]);
    disk.close(LONG).await;
}
