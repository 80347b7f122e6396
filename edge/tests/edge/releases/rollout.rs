//! What a promotion asks of a node.

use origin_sync::release::fleet::{PrewarmAnswer, ReleasesAnswer};
use origin_sync::release::layout;

use super::*;

async fn prewarm(edge: &TestEdge, made: &Made, digest: &Sha256) -> PrewarmAnswer {
    let body = format!(
        r#"{{"name":"{}","version":"{}","manifest":"{digest}"}}"#,
        made.manifest.name, made.manifest.version
    );
    let answer = operator(edge, "POST /v1/releases/prewarm", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

async fn releases(edge: &TestEdge, query: &str) -> ReleasesAnswer {
    let answer = operator(edge, &format!("GET /v1/releases{query}"), "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_at_hand_before_anybody_is_led_to_it() {
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let one = signer.make("1.0.0", &[("lock.js", script("1.0.0"))], None);
    let two = signer.make(
        "2.0.0",
        &[("a.js", script("a")), ("lock.js", script("2.0.0"))],
        Some(&one),
    );
    one.push(&bucket).await;
    two.push(&bucket).await;
    let edge = start(&signer, &bucket, &[]).await;
    let answer = prewarm(&edge, &two, &two.digest()).await;
    assert_eq!((answer.error, answer.manifest), (None, Some(two.digest())));
    for file in &two.manifest.files {
        let held = answer.files.iter().find(|held| held.path == file.path).unwrap();
        assert_eq!(held.forms.len(), file.codings.len() + 1);
        assert_eq!(held.forms[0].sha256, Some(file.sha256));
        for coding in &file.codings {
            let same = |form: &&origin_sync::release::fleet::FormAnswer| {
                form.coding == Some(coding.name) && form.dictionary == coding.dictionary
            };
            assert_eq!(held.forms.iter().find(same).unwrap().sha256, Some(coding.sha256));
        }
    }
    // From now on the bucket is not needed for it.
    let asked = asked_by_clients(&bucket);
    let held = holding(&script("1.0.0"));
    let fields = [
        ("accept-encoding", "br, dcb"),
        ("available-dictionary", held.as_str()),
    ];
    let served = edge.get("/lock/2.0.0/lock.js", &fields).await;
    assert_eq!(served.field("content-encoding"), Some("dcb"), "{}", served.head);
    assert_eq!(decoded(&served, Some(&script("1.0.0"))), script("2.0.0"));
    assert_eq!(asked_by_clients(&bucket), asked);

    assert_eq!(releases(&edge, "").await.releases[0].serial, None);
    signer.flip(&bucket, &signer.channel(1, &[("1", &two)])).await;
    assert_eq!(releases(&edge, "").await.releases[0].serial, None);
    let state = releases(&edge, "?refresh=lock").await.releases.remove(0);
    assert_eq!((state.serial, state.expires), (Some(1), Some(4_000_000_000)));
    assert_eq!(state.aliases["1"].version.as_str(), "2.0.0");
    assert_eq!(
        operator(&edge, "GET /v1/releases?refresh=A", "").await.status,
        400
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_fetched_is_said_form_by_form() {
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let one = signer.make("1.0.0", &[("lock.js", script("1.0.0"))], None);
    one.push(&bucket).await;
    let file = one.file("lock.js");
    bucket
        .put(&layout::blob(&file.codings[0].sha256), "spoilt", "")
        .await;
    let edge = start(&signer, &bucket, &[]).await;
    let answer = prewarm(&edge, &one, &one.digest()).await;
    assert_eq!(answer.files[0].forms[0].sha256, Some(file.sha256));
    assert_eq!(answer.files[0].forms[1].sha256, None);
    assert!(
        answer.files[0].forms[1]
            .error
            .as_ref()
            .unwrap()
            .contains("other bytes")
    );
    let answer = prewarm(&edge, &one, &Sha256::of(b"another")).await;
    assert!(answer.error.unwrap().contains("the manifest in use is"));
    let never = signer.make("9.0.0", &[("lock.js", script("9"))], None);
    let answer = prewarm(&edge, &never, &never.digest()).await;
    assert!(answer.error.unwrap().contains("is not there"));
    let mut foreign = one.clone();
    foreign.manifest.name = "okta".parse().unwrap();
    let answer = prewarm(&edge, &foreign, &one.digest()).await;
    assert!(
        answer
            .error
            .unwrap()
            .contains("no site of this node releases okta")
    );
    assert_eq!(
        operator(&edge, "POST /v1/releases/prewarm", "{}").await.status,
        400
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_releases_in_and_lets_them_go() {
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let one = signer.make("1.0.0", &[("lock.js", script("1.0.0"))], None);
    one.push(&bucket).await;
    signer.flip(&bucket, &signer.channel(1, &[("1", &one)])).await;
    bucket.put("plain.js", "plain", "").await;
    let mut edge = TestEdge::start_from_file(&bucket, "").await;
    assert_eq!(edge.get("/plain.js", &[]).await.text(), "plain");
    edge.rewrite(&bucket, &format!("{}\n{RELEASES}", signer.site()));
    edge.node.reload();
    assert_eq!(refresh(&edge).await.serial, Some(1));
    assert_eq!(edge.get("/plain.js", &[]).await.status, 404);
    assert_eq!(edge.get("/lock/1/lock.js", &[]).await.body, script("1.0.0"));
    edge.rewrite(&bucket, "");
    edge.node.reload();
    assert_eq!(edge.get("/plain.js", &[]).await.text(), "plain");
    assert_eq!(edge.get("/lock/1/lock.js", &[]).await.status, 404);
    edge.stop().await;
}
