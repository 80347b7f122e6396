//! Who may do what.

use aws_sdk_s3::primitives::ByteStream;

use crate::{BUCKET, TestBucket, client, status};

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let bucket = TestBucket::start().await;
    bucket.put("k", "x").await;
    let stranger = client(&bucket.server, "wrong");
    assert_eq!(
        status(stranger.get_object().bucket(BUCKET).key("k").send().await),
        403
    );
    let put = stranger
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .body(ByteStream::from_static(b"y"));
    assert_eq!(status(put.send().await), 403);
    assert_eq!(bucket.get("k").await, b"x");
}

#[tokio::test]
async fn without_a_signature_only_reading_can_be_allowed() {
    let bucket = TestBucket::start().await;
    bucket.put("k", "x").await;
    assert_eq!(bucket.exchange("k").await.status(), 403);
    let bucket = TestBucket::with(|options| options.anonymous_read = true).await;
    bucket.put("k", "open").await;
    let got = bucket.exchange("k").await;
    assert_eq!((got.status(), got.body.as_slice()), (200, b"open".as_slice()));
    assert_eq!(bucket.exchange("").await.status(), 403);
    assert_eq!(bucket.exchange("none").await.status(), 404);
}

#[tokio::test]
async fn who_may_not_list_is_not_told_what_is_missing() {
    let bucket = TestBucket::with(|options| options.list_allowed = false).await;
    bucket.put("k", "x").await;
    assert_eq!(bucket.get("k").await, b"x");
    assert_eq!(
        status(bucket.client.get_object().bucket(BUCKET).key("none").send().await),
        403
    );
    assert_eq!(
        status(
            bucket
                .client
                .head_object()
                .bucket(BUCKET)
                .key("none")
                .send()
                .await
        ),
        403
    );
    assert_eq!(
        status(bucket.client.list_objects_v2().bucket(BUCKET).send().await),
        403
    );
}

#[tokio::test]
async fn requests_are_logged() {
    let bucket = TestBucket::start().await;
    bucket.put("a b", "x").await;
    bucket.server.clear_log();
    let get = bucket
        .client
        .get_object()
        .bucket(BUCKET)
        .key("a b")
        .range("bytes=0-0")
        .if_none_match("\"x\"");
    get.send().await.unwrap();
    let log = bucket.server.log();
    let seen = &log[0];
    assert_eq!(
        (seen.method.as_str(), seen.bucket.as_str(), seen.key.as_str()),
        ("GET", BUCKET, "a b")
    );
    assert_eq!(
        (seen.range.as_deref(), seen.if_none_match.as_deref()),
        (Some("bytes=0-0"), Some("\"x\""))
    );
    assert_eq!((log.len(), seen.status), (1, Some(206)));
}
