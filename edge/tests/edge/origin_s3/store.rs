//! What any S3 must answer: run against the embedded bucket, and against the one that the environment names.

use aws_sdk_s3::primitives::ByteStream;
use edge::config;
use edge::origin::{Ask, AskedRange, Body, Kind};

use super::lab::{Edge, Embedded, Place, drain, field, noise, thrice};

/// Deadlines that a slow store can keep.
fn patient() -> config::OriginTimeouts {
    thrice()
}

macro_rules! against_every_store {
    ($($name:ident)*) => {$(
        #[tokio::test]
        async fn $name() {
            let embedded = Embedded::start().await;
            scenario::$name(&embedded.place).await;
            if let Some(place) = Place::external().await {
                scenario::$name(&place).await;
            }
        }
    )*};
}

against_every_store! {
    an_object_comes_whole_with_its_fields_and_without_the_buckets_noise
    a_missing_key_is_a_404_without_the_buckets_xml
    a_condition_is_asked_of_its_own_bucket_only
    ranges_are_the_bytes_that_were_asked
    a_head_has_fields_and_length_and_no_body
    odd_keys_are_found
    paths_that_no_object_can_have_are_not_asked_for
    an_empty_object_is_whole
    a_large_object_streams_in_pieces
    a_bucket_that_does_not_exist_is_an_error_and_not_a_404
}

mod scenario {
    use super::*;

    pub(super) async fn an_object_comes_whole_with_its_fields_and_without_the_buckets_noise(place: &Place) {
        let put = place
            .client()
            .put_object()
            .bucket(&place.bucket)
            .key("client/w.js");
        put.cache_control("public, max-age=60")
            .content_encoding("gzip")
            .content_type("binary/octet-stream")
            .metadata("surrogate-key", "widgets w-1")
            .metadata("cache-tag", "a,b")
            .metadata("owner", "somebody")
            .body(ByteStream::from_static(b"not really gzip"))
            .send()
            .await
            .unwrap();
        let edge = Edge::of(place, patient());
        let answer = edge.get("/client/w.js").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.length), (200, Some(15)));
        assert_eq!(
            field(&answer, "content-type").unwrap(),
            "text/javascript; charset=utf-8"
        );
        assert_eq!(field(&answer, "content-encoding").unwrap(), "gzip");
        assert_eq!(field(&answer, "cache-control").unwrap(), "public, max-age=60");
        assert_eq!(field(&answer, "surrogate-key").unwrap(), "widgets w-1");
        assert_eq!(field(&answer, "cache-tag").unwrap(), "a,b");
        assert!(field(&answer, "etag").unwrap().starts_with('"'));
        assert!(field(&answer, "last-modified").is_some());
        for name in answer.headers.keys() {
            let noise = name.as_str().starts_with("x-amz") || name == "server" || name == "connection";
            assert!(
                !noise && name != "content-length" && name != "accept-ranges",
                "{name}"
            );
        }
        assert_eq!(drain(answer).await.unwrap(), b"not really gzip");
        assert!(edge.counts("edge_origin_requests_total{result=\"ok\"} 1"));
        assert!(edge.counts("edge_origin_first_byte_seconds_count 1"));
    }

    pub(super) async fn a_missing_key_is_a_404_without_the_buckets_xml(place: &Place) {
        let edge = Edge::of(place, patient());
        let mut answer = edge.get("/missing").await.unwrap();
        assert_eq!(answer.status.as_u16(), 404);
        assert!(answer.body.chunk().await.is_none() && matches!(answer.body, Body::Empty));
        assert!(
            answer.headers.keys().all(|name| name == "date"),
            "{:?}",
            answer.headers
        );
        assert!(edge.counts("edge_origin_requests_total{result=\"not_found\"} 1"));
    }

    pub(super) async fn a_condition_is_asked_of_its_own_bucket_only(place: &Place) {
        place.put("tenant.json", "{}").await;
        let edge = Edge::of(place, patient());
        let stored = edge.get("/tenant.json").await.unwrap();
        let answer = edge.revalidate("/tenant.json", &stored).await.unwrap();
        assert_eq!(answer.status.as_u16(), 304);
        assert_eq!(answer.headers.get("etag"), stored.headers.get("etag"));
        assert!(matches!(answer.body, Body::Empty));

        let mut dated = edge.get("/tenant.json").await.unwrap();
        dated.headers.remove("etag");
        assert_eq!(
            edge.revalidate("/tenant.json", &dated)
                .await
                .unwrap()
                .status
                .as_u16(),
            304
        );

        let mut elsewhere = edge.get("/tenant.json").await.unwrap();
        elsewhere.source = "another".into();
        assert_eq!(
            edge.revalidate("/tenant.json", &elsewhere)
                .await
                .unwrap()
                .status
                .as_u16(),
            200
        );

        place.put("tenant.json", "{\"a\":1}").await;
        let answer = edge.revalidate("/tenant.json", &stored).await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), drain(answer).await.unwrap()),
            (200, b"{\"a\":1}".to_vec())
        );
    }

    pub(super) async fn ranges_are_the_bytes_that_were_asked(place: &Place) {
        place.put("digits.txt", "0123456789").await;
        let edge = Edge::of(place, patient());
        for (range, place, bytes) in [
            (
                AskedRange::From {
                    first: 2,
                    last: Some(4),
                },
                "bytes 2-4/10",
                "234",
            ),
            (AskedRange::From { first: 7, last: None }, "bytes 7-9/10", "789"),
            (
                AskedRange::From {
                    first: 7,
                    last: Some(99),
                },
                "bytes 7-9/10",
                "789",
            ),
            (AskedRange::Suffix(2), "bytes 8-9/10", "89"),
        ] {
            let answer = edge.range("/digits.txt", range).await.unwrap();
            assert_eq!(answer.status.as_u16(), 206, "{range:?}");
            assert_eq!(field(&answer, "content-range").unwrap(), place);
            assert_eq!(drain(answer).await.unwrap(), bytes.as_bytes());
        }
        let error = edge
            .range(
                "/digits.txt",
                AskedRange::From {
                    first: 10,
                    last: None,
                },
            )
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::RangeRefused);
    }

    pub(super) async fn a_head_has_fields_and_length_and_no_body(place: &Place) {
        place.put("page.html", "<p>hello</p>").await;
        let edge = Edge::of(place, patient());
        let ask = |path: &str| Ask {
            path: path.to_owned(),
            head: true,
            ..Ask::default()
        };
        let answer = edge.origin.fetch(ask("/page.html")).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.length), (200, Some(12)));
        assert_eq!(
            field(&answer, "content-type").unwrap(),
            "text/html; charset=utf-8"
        );
        assert!(matches!(answer.body, Body::Empty));
        assert_eq!(
            edge.origin
                .fetch(ask("/missing.html"))
                .await
                .unwrap()
                .status
                .as_u16(),
            404
        );
    }

    pub(super) async fn odd_keys_are_found(place: &Place) {
        let edge = Edge::of(place, patient());
        for (key, path) in [
            ("a b+c?d#e", "/a%20b%2Bc%3Fd%23e"),
            ("naïve/日本.txt", "/na%C3%AFve/%E6%97%A5%E6%9C%AC.txt"),
            ("per%cent", "/per%25cent"),
            ("plus+plus", "/plus+plus"),
            ("tilde~(x)'!*", "/tilde~(x)'!*"),
        ] {
            place.put(key, key).await;
            assert_eq!(edge.body(path).await.unwrap(), key.as_bytes(), "{path}");
        }
    }

    pub(super) async fn paths_that_no_object_can_have_are_not_asked_for(place: &Place) {
        let edge = Edge::of(place, patient());
        for path in ["/", "/%ff", "/a/../b", "/%2e%2e/other-bucket/key", "/%00"] {
            assert_eq!(edge.get(path).await.unwrap().status.as_u16(), 404, "{path}");
        }
        assert!(edge.counts("edge_origin_requests_total{result=\"not_found\"} 0"));
    }

    pub(super) async fn an_empty_object_is_whole(place: &Place) {
        place.put("empty.css", "").await;
        let answer = Edge::of(place, patient()).get("/empty.css").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.length), (200, Some(0)));
        assert_eq!(drain(answer).await.unwrap(), b"");
    }

    pub(super) async fn a_large_object_streams_in_pieces(place: &Place) {
        let content = noise(3 << 20);
        place.put("large.bin", content.clone()).await;
        let mut answer = Edge::of(place, patient()).get("/large.bin").await.unwrap();
        let (mut whole, mut pieces) = (Vec::new(), 0);
        while let Some(chunk) = answer.body.chunk().await {
            whole.extend_from_slice(&chunk.unwrap());
            pieces += 1;
        }
        assert!(
            whole == content && pieces > 1,
            "{} bytes in {pieces} pieces",
            whole.len()
        );
    }

    pub(super) async fn a_bucket_that_does_not_exist_is_an_error_and_not_a_404(place: &Place) {
        let place = Place {
            bucket: "no-such-bucket-here".to_owned(),
            ..place.clone()
        };
        let error = Edge::of(&place, patient()).get("/a.js").await.unwrap_err();
        assert_eq!(error.kind, Kind::ProxyConfigurationError, "{error}");
    }
}
