//! What asks for more than a node gives to releases is told so, and takes nothing from the others.

use origin_sync::bucket::{Barrier, Fault, Rule};

use super::*;
use crate::support::all;

#[tokio::test(flavor = "multi_thread")]
async fn a_form_larger_than_the_cache_takes_is_503_and_a_smaller_one_is_served() {
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let large = crate::coding::noise(150_000);
    let files = [("large.js", large.clone()), ("lock.js", script("1.0.0"))];
    let one = signer.make("1.0.0", &files, None);
    one.push(&bucket).await;
    let edge = start_with(&signer, &bucket, &[], |config| {
        config.cache.object_bytes_max = 100_000;
    })
    .await;
    for _ in 0..2 {
        let refused = edge.get("/lock/1.0.0/large.js", &[]).await;
        assert_eq!(refused.status, 503, "{}", refused.head);
        assert_eq!(refused.field("cache-control"), Some("no-store"));
        assert!(refused.field("retry-after").is_some(), "{}", refused.head);
    }
    assert_eq!(bucket.asked(&layout::blob(&one.file("large.js").sha256)).len(), 0);
    assert_eq!(edge.get("/lock/1.0.0/lock.js", &[]).await.body, script("1.0.0"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_versions_the_oldest_are_forgotten_and_learned_again() {
    const KEPT: usize = 64;
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let versions: Vec<_> = (0..=KEPT).map(|number| format!("1.0.{number}")).collect();
    let mut first = None;
    for version in &versions {
        let made = signer.make(version, &[("lock.js", script(version))], None);
        made.push(&bucket).await;
        first.get_or_insert(made);
    }
    let first = first.unwrap();
    let edge = start(&signer, &bucket, &[]).await;
    for version in &versions {
        let answer = edge.get(&format!("/lock/{version}/lock.js"), &[]).await;
        assert_eq!(answer.body, script(version), "{version} {}", answer.head);
    }
    assert_eq!(bucket.asked(&first.key()).len(), 1);
    assert_eq!(edge.get("/lock/1.0.0/lock.js", &[]).await.body, script("1.0.0"));
    assert_eq!(bucket.asked(&first.key()).len(), 2, "it had been forgotten");
    // Its bytes had not.
    assert_eq!(
        bucket.asked(&layout::blob(&first.file("lock.js").sha256)).len(),
        1
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_ever_new_versions_fills_a_bounded_queue_and_harms_nobody() {
    const LEARNING: usize = 64;
    let (bucket, signer) = (TestBucket::start().await, Signer::new());
    let one = signer.make("1.0.0", &[("lock.js", script("1.0.0"))], None);
    one.push(&bucket).await;
    let edge = start(&signer, &bucket, &[]).await;
    assert_eq!(edge.get("/lock/1.0.0/lock.js", &[]).await.body, script("1.0.0"));
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldUntil(barrier.clone())));
    let paths: Vec<_> = (0..LEARNING)
        .map(|number| format!("/lock/9.0.{number}/x.js"))
        .collect();
    let scan = all(paths.iter().map(|path| edge.get(path, &[])).collect());
    let meanwhile = async {
        crate::client::soon("the bucket to be asked", barrier.arrived(LEARNING)).await;
        let refused = edge.get("/lock/9.1.0/x.js", &[]).await;
        assert_eq!(refused.status, 503, "{}", refused.head);
        assert!(refused.field("retry-after").is_some(), "{}", refused.head);
        assert_eq!(edge.get("/lock/1.0.0/lock.js", &[]).await.body, script("1.0.0"));
        barrier.release();
    };
    let (scanned, ()) = tokio::join!(scan, meanwhile);
    assert!(scanned.iter().all(|answer| answer.status == 404));
    assert_eq!(edge.get("/lock/9.1.0/x.js", &[]).await.status, 404);
    edge.stop().await;
}
