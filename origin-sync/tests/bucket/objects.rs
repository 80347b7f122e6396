//! Objects: what is put is what is got, under every condition, and after a restart.

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, Delete, ObjectIdentifier};
use origin_sync::bucket::{Expect, Meta};

use crate::{BUCKET, TestBucket, status};

#[tokio::test]
async fn what_is_put_is_got() {
    let bucket = TestBucket::start().await;
    for size in [0, 1, 65_535, 65_536, 65_537, 3_000_000] {
        let body: Vec<u8> = (0..size).map(|place: u32| (place % 251) as u8).collect();
        let etag = bucket.put("k", body.clone()).await;
        assert_eq!(bucket.get("k").await, body, "{size}");
        let head = bucket
            .client
            .head_object()
            .bucket(BUCKET)
            .key("k")
            .send()
            .await
            .unwrap();
        assert_eq!(head.content_length, Some(i64::from(size)));
        assert_eq!(head.e_tag, Some(etag));
    }
}

#[tokio::test]
async fn metadata_comes_back_as_it_was_given() {
    let bucket = TestBucket::start().await;
    let put = bucket
        .client
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .body(ByteStream::from_static(b"x"));
    put.content_type("text/javascript; charset=utf-8")
        .cache_control("max-age=60, immutable")
        .content_encoding("gzip")
        .content_language("de")
        .content_disposition("inline")
        .expires(DateTime::from_secs(2_000_000_000))
        .metadata("release", "1.2.3")
        .send()
        .await
        .unwrap();
    let got = bucket
        .client
        .get_object()
        .bucket(BUCKET)
        .key("k")
        .send()
        .await
        .unwrap();
    assert_eq!(
        got.content_type.as_deref(),
        Some("text/javascript; charset=utf-8")
    );
    assert_eq!(got.cache_control.as_deref(), Some("max-age=60, immutable"));
    assert_eq!(got.content_encoding.as_deref(), Some("gzip"));
    assert_eq!(got.content_language.as_deref(), Some("de"));
    assert_eq!(got.content_disposition.as_deref(), Some("inline"));
    assert_eq!(
        got.expires_string.as_deref(),
        Some("Wed, 18 May 2033 03:33:20 GMT")
    );
    assert_eq!(got.metadata.unwrap()["release"], "1.2.3");
}

#[tokio::test]
async fn a_range_is_a_part() {
    let bucket = TestBucket::start().await;
    let body: Vec<u8> = (0..200_000_u32).map(|place| (place % 251) as u8).collect();
    bucket.put("k", body.clone()).await;
    let get = |range: &'static str| {
        bucket
            .client
            .get_object()
            .bucket(BUCKET)
            .key("k")
            .range(range)
            .send()
    };
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=65535-131072", 65_535, 131_073),
        ("bytes=199990-", 199_990, 200_000),
        ("bytes=-10", 199_990, 200_000),
        ("bytes=100-999999999", 100, 200_000),
    ] {
        let got = get(range).await.unwrap();
        let content_range = format!("bytes {from}-{}/200000", to - 1);
        assert_eq!(got.content_range, Some(content_range), "{range}");
        assert_eq!(
            got.body.collect().await.unwrap().to_vec(),
            body[from..to],
            "{range}"
        );
    }
    for range in ["bytes=200000-", "bytes=-0"] {
        assert_eq!(status(get(range).await), 416, "{range}");
    }
}

#[tokio::test]
async fn reads_are_conditional() {
    let bucket = TestBucket::start().await;
    let etag = bucket.put("k", "x").await;
    let get = || bucket.client.get_object().bucket(BUCKET).key("k");
    let modified = get().send().await.unwrap().last_modified.unwrap();
    let before = DateTime::from_secs(modified.secs() - 10);
    assert_eq!(status(get().if_match(&etag).send().await), 200);
    assert_eq!(status(get().if_match("\"other\"").send().await), 412);
    assert_eq!(status(get().if_none_match(&etag).send().await), 304);
    assert_eq!(status(get().if_none_match("\"other\"").send().await), 200);
    assert_eq!(status(get().if_modified_since(modified).send().await), 304);
    assert_eq!(status(get().if_modified_since(before).send().await), 200);
    assert_eq!(status(get().if_unmodified_since(before).send().await), 412);
    let head = bucket
        .client
        .head_object()
        .bucket(BUCKET)
        .key("k")
        .if_none_match(&etag)
        .send()
        .await;
    assert_eq!(status(head), 304);
}

#[tokio::test]
async fn a_304_says_which_object_it_is() {
    let bucket = TestBucket::with(|options| options.anonymous_read = true).await;
    let meta = Meta {
        cache_control: Some("max-age=9".into()),
        ..Meta::default()
    };
    let record = bucket.server.store().put(BUCKET, "k", "x", meta).await.unwrap();
    let key = format!("k HTTP/1.1\r\nif-none-match: \"{}\"\r\nx: ", record.etag);
    let mut socket = bucket.ask(&key).await;
    let mut head = vec![0; 4096];
    let count = tokio::io::AsyncReadExt::read(&mut socket, &mut head)
        .await
        .unwrap();
    let head = String::from_utf8_lossy(&head[..count]).into_owned();
    assert!(head.starts_with("HTTP/1.1 304 "), "{head}");
    assert!(head.contains(&format!("etag: \"{}\"\r\n", record.etag)), "{head}");
    assert!(
        head.contains("last-modified: ") && head.contains("cache-control: max-age=9\r\n"),
        "{head}"
    );
    assert!(
        head.ends_with("\r\n\r\n") && !head.contains("content-type"),
        "{head}"
    );
}

#[tokio::test]
async fn writes_are_conditional() {
    let bucket = TestBucket::start().await;
    let put = |body: &'static [u8]| {
        bucket
            .client
            .put_object()
            .bucket(BUCKET)
            .key("k")
            .body(ByteStream::from_static(body))
    };
    assert_eq!(status(put(b"0").if_match("\"x\"").send().await), 404);
    let first = put(b"1").if_none_match("*").send().await.unwrap().e_tag.unwrap();
    assert_eq!(status(put(b"2").if_none_match("*").send().await), 412);
    assert_eq!(status(put(b"3").if_match(&first).send().await), 200);
    assert_eq!(status(put(b"4").if_match(&first).send().await), 412);
    assert_eq!(bucket.get("k").await, b"3");
    let delete = bucket
        .client
        .delete_object()
        .bucket(BUCKET)
        .key("k")
        .if_match(&first)
        .send()
        .await;
    assert_eq!(status(delete), 412);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_sixteen_racing_writers_one_wins() {
    let bucket = TestBucket::start().await;
    let held = bucket.put("held", "0").await;
    for (key, etag) in [("new", None), ("held", Some(held))] {
        let start = std::sync::Arc::new(tokio::sync::Barrier::new(16));
        let mut writers = tokio::task::JoinSet::new();
        for number in 0..16_u8 {
            let body = ByteStream::from(vec![number; 100_000]);
            let put = bucket.client.put_object().bucket(BUCKET).key(key).body(body);
            let put = match &etag {
                Some(etag) => put.if_match(etag),
                None => put.if_none_match("*"),
            };
            let start = std::sync::Arc::clone(&start);
            writers.spawn(async move {
                start.wait().await;
                (number, status(put.send().await))
            });
        }
        let outcomes = writers.join_all().await;
        let won: Vec<u8> = outcomes
            .iter()
            .filter(|(_, status)| *status == 200)
            .map(|(n, _)| *n)
            .collect();
        assert_eq!(won.len(), 1, "{key} {outcomes:?}");
        assert!(
            outcomes.iter().all(|(_, status)| [200, 412].contains(status)),
            "{outcomes:?}"
        );
        assert_eq!(bucket.get(key).await, vec![won[0]; 100_000]);
    }
}

#[tokio::test]
async fn a_wrong_checksum_is_refused() {
    let bucket = TestBucket::start().await;
    let put = || {
        bucket
            .client
            .put_object()
            .bucket(BUCKET)
            .key("k")
            .body(ByteStream::from_static(b"hello"))
    };
    let wrong = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCU=";
    let right = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";
    assert_eq!(status(put().checksum_sha256(wrong).send().await), 400);
    assert_eq!(
        status(put().checksum_crc64_nvme("AAAAAAAAAAA=").send().await),
        400
    );
    assert_eq!(
        status(put().content_md5("AAAAAAAAAAAAAAAAAAAAAA==").send().await),
        400
    );
    assert_eq!(
        status(bucket.client.head_object().bucket(BUCKET).key("k").send().await),
        404
    );
    put().checksum_sha256(right).send().await.unwrap();
    let get = bucket
        .client
        .get_object()
        .bucket(BUCKET)
        .key("k")
        .checksum_mode(ChecksumMode::Enabled);
    assert_eq!(get.send().await.unwrap().checksum_sha256.as_deref(), Some(right));
}

#[tokio::test]
async fn every_checksum_is_computed_and_returned() {
    let bucket = TestBucket::start().await;
    for (algorithm, expected) in [
        (ChecksumAlgorithm::Crc32, "NhCmhg=="),
        (ChecksumAlgorithm::Crc32C, "mnG7TA=="),
        (ChecksumAlgorithm::Crc64Nvme, "M3eFcAZSQlc="),
        (ChecksumAlgorithm::Sha1, "qvTGHdzF6KLavt4PO0gs2a6pQ00="),
        (
            ChecksumAlgorithm::Sha256,
            "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
        ),
    ] {
        let body = ByteStream::from_static(b"hello");
        let put = bucket.client.put_object().bucket(BUCKET).key("k").body(body);
        put.checksum_algorithm(algorithm.clone()).send().await.unwrap();
        let head = bucket
            .client
            .head_object()
            .bucket(BUCKET)
            .key("k")
            .checksum_mode(ChecksumMode::Enabled);
        let head = head.send().await.unwrap();
        let found = [
            head.checksum_crc32,
            head.checksum_crc32_c,
            head.checksum_crc64_nvme,
            head.checksum_sha1,
            head.checksum_sha256,
        ];
        assert_eq!(
            found.into_iter().flatten().collect::<Vec<_>>(),
            [expected],
            "{algorithm}"
        );
    }
}

#[tokio::test]
async fn a_listing_comes_in_pages() {
    let bucket = TestBucket::start().await;
    let store = bucket.server.store();
    for number in 0..25 {
        store
            .put(BUCKET, &format!("l/{number:02}"), "x", Meta::default())
            .await
            .unwrap();
    }
    store.put(BUCKET, "l/d/1", "x", Meta::default()).await.unwrap();
    store.put(BUCKET, "m", "x", Meta::default()).await.unwrap();
    let list = || bucket.client.list_objects_v2().bucket(BUCKET).prefix("l/");
    let mut pages = list().max_keys(10).into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        found.push(
            page.unwrap()
                .contents()
                .iter()
                .map(|entry| entry.key().unwrap().to_owned())
                .collect(),
        );
    }
    let sizes: Vec<usize> = found.iter().map(Vec::len).collect();
    assert_eq!(sizes, [10, 10, 6]);
    assert!(found.concat().is_sorted());
    let page = list().delimiter("/").start_after("l/23").send().await.unwrap();
    assert_eq!(page.contents()[0].key(), Some("l/24"));
    assert_eq!(page.common_prefixes()[0].prefix(), Some("l/d/"));
    assert_eq!(status(list().continuation_token("nonsense").send().await), 400);
}

#[tokio::test]
async fn what_is_deleted_is_gone() {
    let bucket = TestBucket::start().await;
    for key in ["a", "b", "c"] {
        bucket.put(key, key).await;
    }
    bucket
        .client
        .delete_object()
        .bucket(BUCKET)
        .key("a")
        .send()
        .await
        .unwrap();
    let object = |key| ObjectIdentifier::builder().key(key).build().unwrap();
    let delete = Delete::builder()
        .objects(object("b"))
        .objects(object("none"))
        .build()
        .unwrap();
    let done = bucket
        .client
        .delete_objects()
        .bucket(BUCKET)
        .delete(delete)
        .send()
        .await
        .unwrap();
    assert_eq!((done.deleted().len(), done.errors().len()), (2, 0));
    let left = bucket
        .client
        .list_objects_v2()
        .bucket(BUCKET)
        .send()
        .await
        .unwrap();
    assert_eq!(
        left.contents()
            .iter()
            .filter_map(|entry| entry.key())
            .collect::<Vec<_>>(),
        ["c"]
    );
    let get = bucket.client.get_object().bucket(BUCKET).key("a").send().await;
    assert!(get.unwrap_err().into_service_error().is_no_such_key());
}

#[tokio::test]
async fn a_copy_has_the_bytes_and_what_is_said_of_them() {
    let bucket = TestBucket::start().await;
    let meta = Meta {
        content_type: Some("text/plain".into()),
        ..Meta::default()
    };
    bucket
        .server
        .store()
        .put(BUCKET, "from", "bytes", meta)
        .await
        .unwrap();
    let copy = bucket
        .client
        .copy_object()
        .bucket(BUCKET)
        .key("to")
        .copy_source(format!("{BUCKET}/from"));
    copy.send().await.unwrap();
    bucket
        .client
        .delete_object()
        .bucket(BUCKET)
        .key("from")
        .send()
        .await
        .unwrap();
    let got = bucket
        .client
        .get_object()
        .bucket(BUCKET)
        .key("to")
        .send()
        .await
        .unwrap();
    assert_eq!(got.content_type.as_deref(), Some("text/plain"));
    assert_eq!(got.body.collect().await.unwrap().to_vec(), b"bytes");
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let bucket = TestBucket::start().await;
    let etag = bucket.put("dir/ü", "kept").await;
    let bucket = bucket.restart().await;
    assert_eq!(bucket.get("dir/ü").await, b"kept");
    let head = bucket
        .client
        .head_object()
        .bucket(BUCKET)
        .key("dir/ü")
        .send()
        .await
        .unwrap();
    assert_eq!(head.e_tag, Some(etag));
}

#[tokio::test]
async fn a_reader_keeps_the_body_that_it_began_to_read() {
    let bucket = TestBucket::start().await;
    bucket.put("k", vec![1; 4_000_000]).await;
    let got = bucket
        .client
        .get_object()
        .bucket(BUCKET)
        .key("k")
        .send()
        .await
        .unwrap();
    bucket
        .server
        .store()
        .put_if(BUCKET, "k", "new", Meta::default(), Expect::Present)
        .await
        .unwrap();
    assert_eq!(got.body.collect().await.unwrap().to_vec(), vec![1; 4_000_000]);
    assert_eq!(bucket.get("k").await, b"new");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing() {
    use tokio::io::AsyncWriteExt as _;
    let bucket = TestBucket::start().await;
    let url = bucket
        .client
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .presigned(
            aws_sdk_s3::presigning::PresigningConfig::expires_in(std::time::Duration::from_secs(60)).unwrap(),
        )
        .await
        .unwrap();
    let path = url
        .uri()
        .split_once("//")
        .unwrap()
        .1
        .split_once('/')
        .unwrap()
        .1
        .to_owned();
    let mut socket = tokio::net::TcpStream::connect(bucket.server.address())
        .await
        .unwrap();
    let address = bucket.server.address();
    let head = format!("PUT /{path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 1000000\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&[0; 500_000]).await.unwrap();
    bucket.server.until_seen(|seen| !seen.is_empty()).await;
    drop(socket);
    bucket
        .server
        .store()
        .put(BUCKET, "other", "x", Meta::default())
        .await
        .unwrap();
    let bucket = bucket.restart().await;
    assert_eq!(
        status(bucket.client.head_object().bucket(BUCKET).key("k").send().await),
        404
    );
    assert_eq!(bucket.get("other").await, b"x");
}
