//! Deltas against what a client holds (RFC 9842): only ever between files that were released.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_holds_a_version_gets_the_difference() {
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let one = signer.make("1.0.0", &[("lock.js", script("1.0.0"))], None);
    let two = signer.make("2.0.0", &[("lock.js", script("2.0.0"))], Some(&one));
    one.push(&bucket).await;
    two.push(&bucket).await;
    signer
        .flip(&bucket, &signer.channel(1, &[("1", &one), ("latest", &two)]))
        .await;
    let edge = start(&signer, &bucket, &[]).await;
    let held = holding(&script("1.0.0"));
    let fields = [
        ("accept-encoding", "gzip, deflate, br, zstd, dcb, dcz"),
        ("available-dictionary", held.as_str()),
    ];
    for path in ["/lock/2.0.0/lock.js", "/lock/latest/lock.js"] {
        let answer = edge.get(path, &fields).await;
        assert_eq!(answer.field("content-encoding"), Some("dcb"), "{}", answer.head);
        assert_eq!(answer.body.len() as u64, two.file("lock.js").codings[0].size);
        assert_eq!(decoded(&answer, Some(&script("1.0.0"))), script("2.0.0"));
        assert_eq!(answer.body[..4], [0xff, b'D', b'C', b'B']);
        assert_eq!(answer.body[4..36], *Sha256::of(&script("1.0.0")).as_bytes());
        assert_eq!(
            answer.field("vary"),
            Some("Accept-Encoding, Available-Dictionary")
        );
        assert_eq!(
            answer.field("use-as-dictionary"),
            Some("match=\"/lock/*/lock.js\"")
        );
        assert!(answer.field("unencoded-digest").is_some());
        let tag = answer.field("etag").unwrap();
        let again = edge
            .get(path, &[fields[0], fields[1], ("if-none-match", tag)])
            .await;
        assert_eq!((again.status, again.field("etag")), (304, Some(tag)));
    }
    // No ranges of deltas.
    let answer = edge
        .get(
            "/lock/2.0.0/lock.js",
            &[fields[0], fields[1], ("range", "bytes=0-9")],
        )
        .await;
    assert_eq!(
        (answer.status, answer.field("content-encoding")),
        (206, Some("br"))
    );
    // What holds the very file, or says what is no digest, or takes no deltas, gets the ordinary form.
    let same = holding(&script("2.0.0"));
    for fields in [
        [fields[0], ("available-dictionary", same.as_str())],
        [fields[0], ("available-dictionary", "lock")],
        [fields[0], ("available-dictionary", ":AAAA:")],
        [("accept-encoding", "gzip, br"), fields[1]],
        [("accept-encoding", "gzip, br, dcb;q=0"), fields[1]],
    ] {
        let answer = edge.get("/lock/2.0.0/lock.js", &fields).await;
        assert_eq!(answer.field("content-encoding"), Some("br"), "{fields:?}");
        assert_eq!(decoded(&answer, None), script("2.0.0"));
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_no_release_brought_is_made_once_between_released_files_only() {
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let one = signer.make(
        "1.0.0",
        &[("lock.js", script("1.0.0")), ("other.js", script("other"))],
        None,
    );
    let two = signer.make("2.0.0", &[("lock.js", script("2.0.0"))], None);
    one.push(&bucket).await;
    two.push(&bucket).await;
    signer
        .flip(&bucket, &signer.channel(1, &[("1", &one), ("latest", &two)]))
        .await;
    let edge = start(&signer, &bucket, &[]).await;
    let accepted = ("accept-encoding", "br, dcb");
    let held = holding(&script("1.0.0"));
    let mut tags = Vec::new();
    for _ in 0..3 {
        let answer = edge
            .get(
                "/lock/latest/lock.js",
                &[accepted, ("available-dictionary", &held)],
            )
            .await;
        assert_eq!(answer.field("content-encoding"), Some("dcb"), "{}", answer.head);
        assert_eq!(decoded(&answer, Some(&script("1.0.0"))), script("2.0.0"));
        assert!(answer.body.len() < 200);
        tags.push(answer.field("etag").unwrap().to_owned());
    }
    assert_eq!(tags[0], tags[2]);
    assert_eq!(edge.metric("edge_release_deltas_made_total"), 1);
    let fields = [
        accepted,
        ("available-dictionary", held.as_str()),
        ("if-none-match", tags[0].as_str()),
    ];
    assert_eq!(edge.get("/lock/latest/lock.js", &fields).await.status, 304);
    // The other way is another delta.
    let newer = holding(&script("2.0.0"));
    let answer = edge
        .get("/lock/1/lock.js", &[accepted, ("available-dictionary", &newer)])
        .await;
    assert_eq!(decoded(&answer, Some(&script("2.0.0"))), script("1.0.0"));
    assert_eq!(edge.metric("edge_release_deltas_made_total"), 2);

    // Digests that were never released there choose nothing, cost nothing, and leave nothing behind.
    edge.exchange().cache().memory.bytes();
    let (entries, asked) = (edge.exchange().cache().memory.entries(), bucket.log().len());
    for number in 0..50_u32 {
        let held = match number {
            0 => holding(&script("other")),
            number => holding(&number.to_be_bytes()),
        };
        let answer = edge
            .get(
                "/lock/latest/lock.js",
                &[accepted, ("available-dictionary", &held)],
            )
            .await;
        assert_eq!(answer.field("content-encoding"), Some("br"), "{number}");
        assert_eq!(decoded(&answer, None), script("2.0.0"));
    }
    // The ordinary form itself is the one entry that is new.
    assert!(edge.exchange().cache().memory.entries() <= entries + 1);
    assert!(bucket.log().len() <= asked + 1);
    assert_eq!(edge.metric("edge_release_deltas_made_total"), 2);
    edge.stop().await;
}
