//! What a browser gets: bytes, fields and conditions, by version and by alias.

use origin_sync::release::layout;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_aliases_lead_to_what_was_signed() {
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let one = signer.make("12.5.0", &[("lock.js", script("12.5.0"))], None);
    let two = signer.make(
        "12.5.1",
        &[("lock.js", script("12.5.1")), ("a/b.css", b"b{}".to_vec())],
        Some(&one),
    );
    one.push(&bucket).await;
    two.push(&bucket).await;
    signer
        .flip(&bucket, &signer.channel(1, &[("12", &one), ("latest", &two)]))
        .await;
    let edge = start(&signer, &bucket, &[]).await;

    let versioned = edge.get("/lock/12.5.1/lock.js", &[]).await;
    assert_eq!(versioned.status, 200, "{}", versioned.head);
    assert_eq!(versioned.body, script("12.5.1"));
    let field = |name: &str| versioned.field(name).unwrap().to_owned();
    assert_eq!(field("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(field("content-type"), "text/javascript; charset=utf-8");
    assert_eq!(field("vary"), "Accept-Encoding, Available-Dictionary");
    assert_eq!(field("use-as-dictionary"), "match=\"/lock/*/lock.js\"");
    assert_eq!(field("access-control-allow-origin"), "*");
    assert_eq!(field("etag"), format!("\"{}\"", two.file("lock.js").sha256));
    let vouched = two.file("lock.js").integrity.clone().unwrap();
    assert_eq!(field("unencoded-digest"), vouched.unencoded_digest);
    assert_eq!(Some(field("signature-input")), vouched.signature_input);
    assert_eq!(Some(field("signature")), vouched.signature);
    assert!(
        field("cache-status").contains("fwd=uri-miss"),
        "{}",
        versioned.head
    );

    let aliased = edge
        .get("/lock/latest/lock.js", &[("accept-encoding", "br")])
        .await;
    assert_eq!(decoded(&aliased, None), script("12.5.1"));
    assert_eq!(aliased.field("content-encoding"), Some("br"));
    assert!(
        aliased
            .field("cache-control")
            .unwrap()
            .contains("max-age=300, stale-while-revalidate")
    );
    let by_channel = &signer.channel(1, &[("latest", &two)]).integrity[&two.file("lock.js").sha256];
    assert_eq!(aliased.field("signature"), by_channel.signature.as_deref());
    assert_eq!(edge.get("/lock/12/lock.js", &[]).await.body, script("12.5.0"));
    assert_eq!(edge.get("/lock/latest/a/b.css", &[]).await.body, b"b{}");

    // The second time nobody asks the bucket.
    let before = asked_by_clients(&bucket);
    let again = edge.get("/lock/12.5.1/lock.js", &[]).await;
    assert!(
        again.field("cache-status").unwrap().contains("; hit"),
        "{}",
        again.head
    );
    assert_eq!(again.body, script("12.5.1"));
    assert_eq!(asked_by_clients(&bucket), before);

    // The flip leads on at once, and a version never changes.
    signer
        .flip(&bucket, &signer.channel(2, &[("12", &two), ("latest", &two)]))
        .await;
    assert_eq!(refresh(&edge).await.serial, Some(2));
    assert_eq!(edge.get("/lock/12/lock.js", &[]).await.body, script("12.5.1"));
    assert_eq!(edge.get("/lock/12.5.0/lock.js", &[]).await.body, script("12.5.0"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_released_is_not_found_without_asking_the_bucket() {
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let one = signer.make("1.0.0", &[("lock.js", script("1.0.0"))], None);
    one.push(&bucket).await;
    bucket.put("lock/1.0.0/evil.js", "evil", "").await;
    bucket.put("evil.js", "evil", "").await;
    signer.flip(&bucket, &signer.channel(1, &[("1", &one)])).await;
    let edge = start(&signer, &bucket, &[]).await;
    let before = asked_by_clients(&bucket);
    let blob = layout::blob(&one.file("lock.js").sha256);
    for path in [
        "/",
        "/evil.js",
        "/lock",
        "/lock/1",
        "/lock/1/",
        "/lock/1/evil.js",
        "/lock/1.0.0/evil.js",
        "/lock/1/lock.js/",
        "/lock//lock.js",
        "/Lock/1/lock.js",
        "/other/1/lock.js",
        "/channels/lock.json",
        "/releases/lock/1.0.0.json",
        &format!("/{blob}"),
        &format!("/{}", blob.trim_start_matches("blobs/")),
    ] {
        let answer = edge.get(path, &[]).await;
        assert_eq!(answer.status, 404, "{path} {}", answer.head);
        assert!(!answer.text().contains("evil"), "{path}");
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"), "{path}");
    }
    assert_eq!(asked_by_clients(&bucket), before);
    // Of a version the bucket is asked once, and then it is known for a while that there is none.
    for _ in 0..3 {
        assert_eq!(edge.get("/lock/9.9.9/lock.js", &[]).await.status, 404);
    }
    assert_eq!(bucket.asked("releases/lock/9.9.9.json").len(), 1);
    assert_eq!(edge.ask("POST", "/lock/1/lock.js", &[]).await.status, 405);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_ranges_and_head() {
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let one = signer.make("1.0.0", &[("lock.js", script("1.0.0"))], None);
    one.push(&bucket).await;
    signer.flip(&bucket, &signer.channel(1, &[("1", &one)])).await;
    let edge = start(&signer, &bucket, &[]).await;
    let plain = edge.get("/lock/1/lock.js", &[]).await;
    let coded = edge.get("/lock/1/lock.js", &[("accept-encoding", "br")]).await;
    let (plain_tag, coded_tag) = (plain.field("etag").unwrap(), coded.field("etag").unwrap());
    assert_ne!(plain_tag, coded_tag);
    assert!(!coded_tag.starts_with("W/"));
    for tag in [plain_tag, coded_tag, "*"] {
        let answer = edge
            .get(
                "/lock/1/lock.js",
                &[("if-none-match", tag), ("accept-encoding", "br")],
            )
            .await;
        assert_eq!(answer.status, 304, "{tag}");
        assert!(answer.body.is_empty());
        assert_eq!(
            answer.field("vary"),
            Some("Accept-Encoding, Available-Dictionary")
        );
        assert!(answer.field("signature").is_some());
    }
    let other = edge.get("/lock/1/lock.js", &[("if-none-match", "\"x\"")]).await;
    assert_eq!(other.status, 200);
    assert_eq!(
        edge.get("/lock/1/lock.js", &[("if-match", "\"x\"")]).await.status,
        412
    );
    let part = edge.get("/lock/1/lock.js", &[("range", "bytes=7-16")]).await;
    assert_eq!(
        (part.status, part.body.as_slice()),
        (206, &script("1.0.0")[7..17])
    );
    let part = edge
        .get(
            "/lock/1/lock.js",
            &[
                ("range", "bytes=0-9"),
                ("if-range", coded_tag),
                ("accept-encoding", "br"),
            ],
        )
        .await;
    assert_eq!((part.status, part.body.as_slice()), (206, &coded.body[..10]));
    let head = edge.ask("HEAD", "/lock/1/lock.js", &[]).await;
    assert_eq!(head.status, 200);
    assert_eq!(
        head.field("content-length").unwrap(),
        script("1.0.0").len().to_string()
    );
    assert_eq!(head.field("etag"), Some(plain_tag));
    let refused = edge
        .get("/lock/1/lock.js", &[("accept-encoding", "identity;q=0")])
        .await;
    assert_eq!(refused.status, 406);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_at_once_are_one_question_to_the_bucket() {
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let one = signer.make("1.0.0", &[("lock.js", script("1.0.0"))], None);
    one.push(&bucket).await;
    let edge = start(&signer, &bucket, &[]).await;
    // Neither the manifest nor the file is known here yet.
    let asked = (0..16).map(|_| edge.get("/lock/1.0.0/lock.js", &[])).collect();
    for answer in crate::support::all(asked).await {
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert_eq!(answer.body, script("1.0.0"));
    }
    assert_eq!(bucket.asked(&one.key()).len(), 1);
    assert_eq!(bucket.asked(&layout::blob(&one.file("lock.js").sha256)).len(), 1);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_purge_fetches_anew_and_a_restart_finds_what_the_disk_has() {
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let one = signer.make("1.0.0", &[("lock.js", script("1.0.0"))], None);
    one.push(&bucket).await;
    signer.flip(&bucket, &signer.channel(1, &[("1", &one)])).await;
    let folder = tempfile::TempDir::new().unwrap();
    let (disk, state) = (folder.path().join("disk"), folder.path().join("state"));
    let with_disk = |config: &mut Config| {
        config.cache.disk = Some(edge::config::Disk {
            path: disk.clone(),
            size_bytes: 64 * 1024 * 1024,
            patience: crate::support::PATIENT,
        });
        config.releases.state = Some(state.clone());
    };
    let edge = start_with(&signer, &bucket, &[], with_disk).await;
    let blob = layout::blob(&one.file("lock.js").sha256);
    assert_eq!(edge.get("/lock/1/lock.js", &[]).await.body, script("1.0.0"));
    for tag in ["release:lock", "file:lock.js"] {
        let before = bucket.asked(&blob).len();
        let body = format!("{{\"tags\":[\"{tag}\"]}}");
        assert_eq!(operator(&edge, "POST /v1/purge", &body).await.status, 200);
        assert_eq!(edge.get("/lock/1/lock.js", &[]).await.body, script("1.0.0"));
        assert_eq!(bucket.asked(&blob).len(), before + 1, "{tag}");
    }
    edge.exchange().cache().disk.as_ref().unwrap().flush().await;
    edge.stop().await;

    // The bucket is gone: channel, manifest and bytes are what was kept.
    let asked = bucket.log().len();
    bucket.fault(origin_sync::bucket::Rule::new(
        origin_sync::bucket::Fault::Status(503, "InternalError".into()),
    ));
    let edge = start_with(&signer, &bucket, &[], with_disk).await;
    let answer = edge.get("/lock/1/lock.js", &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(answer.body, script("1.0.0"));
    assert!(
        answer.field("cache-status").unwrap().contains("detail=disk"),
        "{}",
        answer.head
    );
    assert!(
        bucket.log()[asked..]
            .iter()
            .all(|seen| seen.key == "channels/lock.json")
    );
    edge.stop().await;
}
