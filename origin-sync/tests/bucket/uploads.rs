//! Uploads in parts.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumMode, CompletedMultipartUpload, CompletedPart};

use crate::{BUCKET, TestBucket, status};

const FIVE: usize = 5 * 1024 * 1024;

async fn begin(bucket: &TestBucket, key: &str) -> String {
    let begun = bucket
        .client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key(key)
        .content_type("a/b");
    begun.send().await.unwrap().upload_id.unwrap()
}

async fn part(bucket: &TestBucket, key: &str, upload: &str, number: i32, body: Vec<u8>) -> CompletedPart {
    let part = bucket
        .client
        .upload_part()
        .bucket(BUCKET)
        .key(key)
        .upload_id(upload)
        .part_number(number);
    let done = part.body(ByteStream::from(body)).send().await.unwrap();
    CompletedPart::builder()
        .part_number(number)
        .set_e_tag(done.e_tag)
        .build()
}

fn parts(parts: &[&CompletedPart]) -> CompletedMultipartUpload {
    CompletedMultipartUpload::builder()
        .set_parts(Some(parts.iter().copied().cloned().collect()))
        .build()
}

#[tokio::test]
async fn parts_become_an_object_even_over_a_restart() {
    let bucket = TestBucket::start().await;
    let upload = begin(&bucket, "k").await;
    let first = part(&bucket, "k", &upload, 1, vec![1; FIVE]).await;
    let _replaced = part(&bucket, "k", &upload, 3, vec![9; 10]).await;
    let last = part(&bucket, "k", &upload, 3, vec![3; 100]).await;
    let bucket = bucket.restart().await;
    let list = bucket
        .client
        .list_parts()
        .bucket(BUCKET)
        .key("k")
        .upload_id(&upload)
        .send()
        .await
        .unwrap();
    let sizes: Vec<_> = list
        .parts()
        .iter()
        .map(|part| (part.part_number, part.size))
        .collect();
    assert_eq!(sizes, [(Some(1), Some(FIVE as i64)), (Some(3), Some(100))]);
    assert_eq!(
        status(bucket.client.head_object().bucket(BUCKET).key("k").send().await),
        404
    );

    let complete = || {
        bucket
            .client
            .complete_multipart_upload()
            .bucket(BUCKET)
            .key("k")
            .upload_id(&upload)
    };
    let wrong = CompletedPart::builder().part_number(2).e_tag("\"0\"").build();
    assert_eq!(
        status(complete().multipart_upload(parts(&[&first, &wrong])).send().await),
        400
    );
    assert_eq!(
        status(complete().multipart_upload(parts(&[&last, &first])).send().await),
        400
    );
    let done = complete()
        .multipart_upload(parts(&[&first, &last]))
        .send()
        .await
        .unwrap();
    assert!(done.e_tag.unwrap().ends_with("-2\""));
    let get = bucket
        .client
        .get_object()
        .bucket(BUCKET)
        .key("k")
        .checksum_mode(ChecksumMode::Enabled);
    let got = get.send().await.unwrap();
    assert_eq!(got.content_type.as_deref(), Some("a/b"));
    assert_eq!(
        got.body.collect().await.unwrap().to_vec(),
        [vec![1; FIVE], vec![3; 100]].concat()
    );
    assert_eq!(
        status(complete().multipart_upload(parts(&[&first])).send().await),
        404
    );
}

#[tokio::test]
async fn completion_is_conditional() {
    let bucket = TestBucket::start().await;
    let etag = bucket.put("k", "held").await;
    let upload = begin(&bucket, "k").await;
    let only = part(&bucket, "k", &upload, 1, vec![1; 10]).await;
    let complete = || {
        let complete = bucket
            .client
            .complete_multipart_upload()
            .bucket(BUCKET)
            .key("k")
            .upload_id(&upload);
        complete.multipart_upload(parts(&[&only]))
    };
    assert_eq!(status(complete().if_none_match("*").send().await), 412);
    assert_eq!(status(complete().if_match("\"other\"").send().await), 412);
    assert_eq!(status(complete().if_match(etag).send().await), 200);
    assert_eq!(bucket.get("k").await, vec![1; 10]);
}

#[tokio::test]
async fn an_aborted_upload_is_gone() {
    let bucket = TestBucket::start().await;
    let upload = begin(&bucket, "k").await;
    part(&bucket, "k", &upload, 1, vec![1; 10]).await;
    let abort = || {
        bucket
            .client
            .abort_multipart_upload()
            .bucket(BUCKET)
            .key("k")
            .upload_id(&upload)
            .send()
    };
    abort().await.unwrap();
    assert_eq!(status(abort().await), 404);
    let strange = bucket
        .client
        .abort_multipart_upload()
        .bucket(BUCKET)
        .key("k")
        .upload_id("../../assets");
    assert_eq!(status(strange.send().await), 404);
}
