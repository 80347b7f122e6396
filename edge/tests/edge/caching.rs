//! What is stored, for how long, and what is served while the origin is asked, or does not answer.

use std::time::Duration;

use origin_sync::bucket::{Barrier, Fault, Rule};

use crate::support::{TestBucket, TestEdge};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_is_a_miss_and_the_second_a_hit() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "alert(1);", "max-age=60").await;
    let edge = TestEdge::start(&bucket, "").await;
    let first = edge.get("/a.js", &[]).await;
    assert_eq!((first.status, first.text()), (200, "alert(1);"));
    assert_eq!(
        first.field("cache-status"),
        Some("portico; fwd=uri-miss; fwd-status=200; stored")
    );
    edge.clock.advance(Duration::from_secs(10));
    let second = edge.get("/a.js", &[]).await;
    assert_eq!(second.text(), "alert(1);");
    assert_eq!(second.field("cache-status"), Some("portico; hit; ttl=50"));
    assert_eq!(second.field("age"), Some("10"));
    assert_eq!(bucket.asked("a.js").len(), 1);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_of_a_cold_key_are_one_fetch() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x".repeat(5000), "max-age=60").await;
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldUntil(barrier.clone())).key("a.js"));
    let edge = TestEdge::start(&bucket, "").await;
    let clients = (0..50).map(|_| edge.get("/a.js", &[]));
    let all = futures_join(clients.collect());
    let release = async {
        edge.until("followers", || edge.exchange().cache().flights.len() == 1)
            .await;
        barrier.arrived(1).await;
        barrier.release();
    };
    let (answers, ()) = tokio::join!(all, release);
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.body.len() == 5000)
    );
    assert_eq!(bucket.asked("a.js").len(), 1);
    edge.stop().await;
}

/// All of `futures`, concurrently.
async fn futures_join<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures
        .into_iter()
        .map(|future| (Box::pin(future), None))
        .collect();
    std::future::poll_fn(|cx| {
        for (future, output) in &mut futures {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(cx)
            {
                *output = Some(ready);
            }
        }
        if futures.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}
