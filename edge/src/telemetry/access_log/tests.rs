//! Lines of the access log, and what happens when nobody takes them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn entry(target: &str) -> Entry<'_> {
    Entry {
        method: "GET",
        scheme: "https",
        host: "cdn.example",
        target,
        version: Version::HTTP_2,
        status: StatusCode::OK,
        client: "203.0.113.77".parse().unwrap(),
        referer: None,
        user_agent: Some(b"curl/8"),
        bytes: 1234,
        received: Timestamp::from_unix_micros(784_111_777_000_042),
        duration: Duration::from_micros(1500),
        first_byte: Duration::from_micros(70),
        cache: "hit",
        coding: "br",
        site: "cdn.example",
        end: "whole",
    }
}

fn config(format: config::LogFormat, path: &Path) -> config::AccessLog {
    config::AccessLog {
        format,
        path: Some(path.to_owned()),
        sample: 1.0,
        truncate_address: true,
    }
}

/// Hands over what is wanted, as the data plane does.
fn push(log: &AccessLog, entry: Entry<'_>) {
    if log.wants(entry.received, entry.client, entry.status) {
        log.push(&entry);
    }
}

/// What a log with these entries holds in the end.
fn written<'a>(config: &config::AccessLog, entries: impl IntoIterator<Item = Entry<'a>>) -> String {
    let log = AccessLog::start(Some(config), &Registry::default()).unwrap();
    for entry in entries {
        push(&log, entry);
    }
    assert!(log.finish(PATIENCE));
    std::fs::read_to_string(config.path.as_ref().unwrap()).unwrap()
}

#[test]
fn a_line_of_each_format() {
    let folder = tempfile::tempdir().unwrap();
    let combined = config(config::LogFormat::Combined, &folder.path().join("combined"));
    assert_eq!(
        written(&combined, [entry("/a.js?v=1")]),
        "203.0.113.0 - - [06/Nov/1994:08:49:37 +0000] \"GET /a.js?v=1 HTTP/2.0\" 200 1234 \"-\" \"curl/8\"\n"
    );
    let mut json = config(config::LogFormat::Json, &folder.path().join("json"));
    json.truncate_address = false;
    assert_eq!(
        written(&json, [entry("/a.js?v=1")]),
        "{\"time\":\"1994-11-06T08:49:37.000042Z\",\"client\":\"203.0.113.77\",\"method\":\"GET\",\
         \"scheme\":\"https\",\"host\":\"cdn.example\",\"target\":\"/a.js?v=1\",\"version\":\"HTTP/2.0\",\
         \"status\":200,\"bytes\":1234,\"duration_seconds\":0.001500,\"first_byte_seconds\":0.000070,\
         \"cache\":\"hit\",\"coding\":\"br\",\"site\":\"cdn.example\",\"end\":\"whole\",\
         \"user_agent\":\"curl/8\"}\n"
    );
}

#[test]
fn nothing_that_a_client_sends_leaves_its_place() {
    let hostile = || {
        let mut entry = entry("/%0d%0a\"{}");
        entry.host = "a\r\nb\"\\\u{9b}c";
        entry.user_agent = Some(b"a\" 200 \\ \x9b\xff\t\xe2\x80\xa8z");
        entry.referer = Some("x\u{85}\u{1f600}".as_bytes());
        entry
    };
    let folder = tempfile::tempdir().unwrap();
    for format in [config::LogFormat::Combined, config::LogFormat::Json] {
        let path = folder.path().join(format!("{format:?}"));
        let text = written(&config(format, &path), [hostile(), hostile()]);
        assert_eq!(text.lines().count(), 2);
        assert!(
            text.bytes()
                .all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)),
            "{text}"
        );
        if format == config::LogFormat::Combined {
            assert!(text.contains(" \"x\\xc2\\x85\\xf0\\x9f\\x98\\x80\" \"a\\x22 200 \\x5c \\x9b\\xff\\x09\\xe2\\x80\\xa8z\"\n"), "{text}");
            continue;
        }
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["host"], "a\r\nb\"\\\u{9b}c");
            assert_eq!(value["referer"], "x\u{85}\u{1f600}");
        }
    }
}

#[test]
fn a_sample_keeps_its_share_and_every_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(config::LogFormat::Combined, &folder.path().join("log"));
    config.sample = 0.25;
    let text = written(
        &config,
        (0..4_000_i64).map(|n| {
            let mut entry = entry("/a");
            entry.received = Timestamp::from_unix_micros(n);
            if n % 100 == 0 {
                entry.status = StatusCode::BAD_GATEWAY;
            }
            entry
        }),
    );
    let (errors, others): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.contains(" 502 "));
    assert_eq!(errors.len(), 40);
    assert!((850..1150).contains(&others.len()), "{}", others.len());
}

/// A log into a pipe, and the pipe's reading end.
fn piped(entries: usize) -> (AccessLog, io::PipeReader) {
    let (reader, writer) = io::pipe().unwrap();
    let config = config(config::LogFormat::Combined, Path::new("unused"));
    let output = Output {
        file: File::from(OwnedFd::from(writer)),
        format: config.format,
        truncate_address: true,
    };
    let log = AccessLog::start_with(entries, Some(&config), Some(output), &Registry::default()).unwrap();
    (log, reader)
}

#[test]
fn a_pipe_that_nobody_reads_costs_lines_and_no_time() {
    let (log, mut reader) = piped(1_000);
    // A pipe holds 64 KiB, the writer's buffer about as much, and the queue 1,000 entries: far less than this.
    for _ in 0..20_000 {
        push(&log, entry("/a"));
    }
    assert!(log.0.dropped.value(Dropped::QueueFull) > 10_000);
    assert!(!log.finish(Duration::from_millis(1)));
    // Once somebody reads, what was kept comes out whole, and the sum is right.
    let mut text = String::new();
    let kept = std::thread::spawn(move || {
        reader.read_to_string(&mut text).unwrap();
        text.lines().count() as u64
    });
    assert!(log.finish(PATIENCE));
    let kept = kept.join().unwrap();
    assert_eq!(kept + log.0.dropped.value(Dropped::QueueFull), 20_000);
    assert_eq!(log.0.written.value(), kept);
}

#[test]
fn a_reader_that_went_away_costs_lines_only() {
    let (log, reader) = piped(1_000);
    drop(reader);
    for _ in 0..10 {
        push(&log, entry("/a"));
    }
    assert!(log.finish(PATIENCE));
    assert_eq!(log.0.dropped.value(Dropped::WriteFailed), 10);
    assert_eq!(log.0.written.value(), 0);
}

#[test]
fn a_full_disk_costs_lines_only() {
    // Writing to /dev/full fails as a full disk does.
    let config = config(config::LogFormat::Combined, Path::new("/dev/full"));
    let log = AccessLog::start(Some(&config), &Registry::default()).unwrap();
    push(&log, entry("/a"));
    assert!(log.finish(PATIENCE));
    assert_eq!(log.0.dropped.value(Dropped::WriteFailed), 1);
}

#[test]
fn a_moved_file_is_left_behind_at_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
    let log = AccessLog::start(
        Some(&config(config::LogFormat::Combined, &path)),
        &Registry::default(),
    )
    .unwrap();
    push(&log, entry("/before"));
    // The first line is there once a reader sees it.
    let mut line = String::new();
    let mut reader = BufReader::new(File::open(&path).unwrap());
    while line.is_empty() {
        reader.read_line(&mut line).unwrap();
        std::thread::yield_now();
    }
    std::fs::rename(&path, &moved).unwrap();
    log.reopen().unwrap();
    push(&log, entry("/after"));
    assert!(log.finish(PATIENCE));
    assert!(std::fs::read_to_string(&moved).unwrap().contains("/before"));
    let after = std::fs::read_to_string(&path).unwrap();
    assert!(after.contains("/after") && after.lines().count() == 1, "{after}");
}

#[test]
fn a_log_that_cannot_be_opened_is_refused_and_the_old_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let good = config(config::LogFormat::Combined, &folder.path().join("log"));
    let bad = config(config::LogFormat::Combined, &folder.path().join("none/log"));
    assert!(AccessLog::start(Some(&bad), &Registry::default()).is_err());
    let log = AccessLog::start(Some(&good), &Registry::default()).unwrap();
    assert!(log.apply(Some(&bad)).is_err());
    push(&log, entry("/a"));
    assert!(log.finish(PATIENCE));
    assert_eq!(log.0.written.value(), 1);
}

#[test]
fn a_log_switched_off_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let log = AccessLog::start(None, &Registry::default()).unwrap();
    push(&log, entry("/a"));
    log.apply(Some(&config(config::LogFormat::Combined, &path)))
        .unwrap();
    push(&log, entry("/b"));
    assert!(log.finish(PATIENCE));
    assert!(!std::fs::read_to_string(&path).unwrap().contains("/a"));
    assert_eq!(log.0.written.value(), 1);
}
