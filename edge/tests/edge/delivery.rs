//! How an answer is delivered: ranges, preconditions, the fields of a site, and what failures look like.

use edge::config::{CertificateFiles, Listen};
use edge::fields::dates;
use edge::http::Kind;

use crate::client::{Answer, TestClient};
use crate::coding::noise;
use crate::support::{TestBucket, TestEdge};

const LENGTH: usize = 10_000;

/// A node with `a.bin` of 10,000 bytes stored.
async fn filled(bucket: &TestBucket, site: &str) -> (TestEdge, Vec<u8>, Answer) {
    let body = noise(LENGTH);
    bucket.put("a.bin", body.clone(), "max-age=600").await;
    let edge = TestEdge::start(bucket, site).await;
    let whole = edge.get("/a.bin", &[]).await;
    assert!(whole.body == body);
    (edge, body, whole)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_range_is_a_part() {
    let bucket = TestBucket::start().await;
    let (edge, body, whole) = filled(&bucket, "").await;
    for (asked, first, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=9900-", 9900, LENGTH),
        ("bytes=9900-99999999999999999999999", 9900, LENGTH),
        ("bytes=-1", LENGTH - 1, LENGTH),
        ("bytes=-99999", 0, LENGTH),
        ("bytes=0-", 0, LENGTH),
        ("BYTES=5-6", 5, 7),
        ("bytes=0-10,5-20", 0, 21),
        ("bytes=5-6,20000-", 5, 7),
    ] {
        let answer = edge.get("/a.bin", &[("range", asked)]).await;
        assert_eq!(answer.status, 206, "{asked}");
        assert_eq!(
            answer.field("content-range"),
            Some(&*format!("bytes {first}-{}/{LENGTH}", end - 1)),
            "{asked}"
        );
        assert!(answer.body == body[first..end], "{asked}");
        for name in ["etag", "last-modified", "cache-control", "content-type"] {
            assert_eq!(answer.field(name), whole.field(name), "{asked} {name}");
        }
    }
    assert_eq!(bucket.asked("a.bin").len(), 1);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_says_nothing_useful_is_ignored_and_one_beyond_the_end_refused() {
    let bucket = TestBucket::start().await;
    let (edge, body, _) = filled(&bucket, "").await;
    for ignored in [
        "bytes=2-1",
        "bytes=a-b",
        "bytes",
        "bytes=",
        "lines=0-1",
        "bytes=0-1,x",
        "bytes=--1",
        "bytes 0-1",
    ] {
        let answer = edge.get("/a.bin", &[("range", ignored)]).await;
        assert!(answer.status == 200 && answer.body == body, "{ignored}");
    }
    for beyond in [
        "bytes=10000-",
        "bytes=10000-10001",
        "bytes=-0",
        "bytes=99999-,88888-",
    ] {
        let answer = edge.get("/a.bin", &[("range", beyond)]).await;
        assert_eq!(answer.status, 416, "{beyond}");
        assert_eq!(answer.field("content-range"), Some("bytes */10000"), "{beyond}");
        assert!(answer.body.len() < 1000, "{beyond}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_that_multiply_the_object_are_not_obeyed() {
    let bucket = TestBucket::start().await;
    let (edge, body, _) = filled(&bucket, "").await;
    let overlapping = format!("bytes={}", vec!["0-"; 1000].join(","));
    let tiny = format!(
        "bytes={}",
        (0..1000)
            .map(|at| format!("{}-{}", at * 3, at * 3))
            .collect::<Vec<_>>()
            .join(",")
    );
    for many in [
        &overlapping,
        &tiny,
        "bytes=0-,0-,0-,0-",
        "bytes=-1,-2,-3,-9999",
        "bytes=0-5000,4000-9999,0-9999",
    ] {
        let answer = edge.get("/a.bin", &[("range", many)]).await;
        assert!([200, 206].contains(&answer.status));
        assert!(
            answer.body.len() <= 2 * body.len(),
            "{} bytes for {many:.40}",
            answer.body.len()
        );
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_are_parts_of_one_answer() {
    let bucket = TestBucket::start().await;
    let (edge, body, whole) = filled(&bucket, "").await;
    let answer = edge.get("/a.bin", &[("range", "bytes=0-9,100-109,-10")]).await;
    assert_eq!(answer.status, 206);
    let kind = answer.field("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let mut expected = Vec::new();
    for (first, end) in [(0, 10), (100, 110), (LENGTH - 10, LENGTH)] {
        let media_type = whole.field("content-type").unwrap();
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: bytes {first}-{}/{LENGTH}\r\n\r\n",
            end - 1
        );
        expected.extend(head.into_bytes());
        expected.extend(&body[first..end]);
    }
    expected.extend(format!("\r\n--{boundary}--\r\n").into_bytes());
    assert_eq!(
        String::from_utf8_lossy(&answer.body),
        String::from_utf8_lossy(&expected)
    );
    assert_eq!(answer.field("content-range"), None);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn if_range_obeys_the_strong_tag_and_the_exact_date_alone() {
    let bucket = TestBucket::start().await;
    let (edge, _, whole) = filled(&bucket, "").await;
    // A date is a strong validator only when it is older than the response (RFC 9110, 8.8.2.2).
    let (etag, modified) = (
        whole.field("etag").unwrap(),
        whole.field("last-modified").unwrap(),
    );
    let weak = format!("W/{etag}");
    let later = dates::format(edge.clock.now() + std::time::Duration::from_secs(3600));
    for (validator, expected) in [
        (etag, 206),
        (&weak, 200),
        ("\"other\"", 200),
        (&later, 200),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 200),
        ("nonsense", 200),
    ] {
        let answer = edge
            .get("/a.bin", &[("range", "bytes=0-9"), ("if-range", validator)])
            .await;
        assert_eq!(answer.status, expected, "{validator}");
    }
    let date = edge
        .get("/a.bin", &[("range", "bytes=0-9"), ("if-range", modified)])
        .await;
    assert!([200, 206].contains(&date.status));
    let without = edge.get("/a.bin", &[("if-range", etag)]).await;
    assert_eq!(without.status, 200, "without a range it means nothing");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_ignores_ranges() {
    let bucket = TestBucket::start().await;
    let (edge, _, whole) = filled(&bucket, "").await;
    for range in ["bytes=0-9", "bytes=99999-", "bytes=0-1,5-6"] {
        let answer = edge.ask("HEAD", "/a.bin", &[("range", range)]).await;
        assert_eq!(
            (answer.status, answer.field("content-length")),
            (200, Some("10000")),
            "{range}"
        );
        assert_eq!(answer.field("etag"), whole.field("etag"));
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn preconditions_are_weighed_in_the_order_of_the_standard() {
    let bucket = TestBucket::start().await;
    let (edge, _, whole) = filled(&bucket, "").await;
    let (etag, modified) = (
        whole.field("etag").unwrap(),
        whole.field("last-modified").unwrap(),
    );
    let weak = format!("W/{etag}");
    let before = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (fields, expected) in [
        (&[("if-match", etag)][..], 200),
        (&[("if-match", "*")], 200),
        (&[("if-match", &*weak)], 412),
        (&[("if-match", "\"other\"")], 412),
        (&[("if-unmodified-since", before)], 412),
        (&[("if-unmodified-since", modified)], 200),
        (&[("if-match", etag), ("if-unmodified-since", before)], 200),
        (&[("if-none-match", etag)], 304),
        (&[("if-none-match", &*weak)], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", "\"other\"")], 200),
        (&[("if-modified-since", modified)], 304),
        (&[("if-modified-since", before)], 200),
        (
            &[("if-none-match", "\"other\""), ("if-modified-since", modified)],
            200,
        ),
        (&[("if-match", "\"other\""), ("if-none-match", etag)], 412),
        (&[("if-match", etag), ("if-none-match", etag)], 304),
        (&[("if-none-match", etag), ("range", "bytes=0-9")], 304),
        (&[("if-match", "\"other\""), ("range", "bytes=99999-")], 412),
        (&[("if-match", etag), ("range", "bytes=0-9")], 206),
        (&[("if-modified-since", "nonsense")], 200),
    ] {
        for method in ["GET", "HEAD"] {
            let expected = if method == "HEAD" && expected == 206 {
                200
            } else {
                expected
            };
            assert_eq!(
                edge.ask(method, "/a.bin", fields).await.status,
                expected,
                "{method} {fields:?}"
            );
        }
    }
    // On a miss, too.
    for (fields, expected) in [
        ([("if-none-match", etag)], 304),
        ([("if-match", "\"other\"")], 412),
        ([("range", "bytes=5-6")], 206),
    ] {
        edge.exchange().cache().memory.remove(&edge.key("/a.bin"));
        assert_eq!(edge.get("/a.bin", &fields).await.status, expected, "{fields:?}");
    }
    edge.stop().await;
}

const EMBEDDED: [(&str, &str); 4] = [
    ("access-control-allow-origin", "*"),
    ("cross-origin-resource-policy", "cross-origin"),
    ("timing-allow-origin", "*"),
    ("x-content-type-options", "nosniff"),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_site_says_on_every_answer_that_any_page_may_read_it() {
    let bucket = TestBucket::start().await;
    let (edge, _, whole) = filled(&bucket, "preset = \"embed\"").await;
    bucket.put("b.bin", "x", "max-age=60").await;
    let etag = whole.field("etag").unwrap();
    for (method, path, fields, expected) in [
        ("GET", "/a.bin", &[][..], 200),
        ("GET", "/b.bin", &[], 200),
        ("HEAD", "/a.bin", &[], 200),
        ("GET", "/a.bin", &[("range", "bytes=0-9")], 206),
        ("GET", "/a.bin", &[("range", "bytes=0-9,20-29")], 206),
        ("GET", "/a.bin", &[("if-none-match", etag)], 304),
        ("GET", "/a.bin", &[("if-match", "\"no\"")], 412),
        ("GET", "/a.bin", &[("range", "bytes=99999-")], 416),
        ("GET", "/none.js", &[], 404),
        ("GET", "/none.js", &[], 404),
        ("GET", "/a%5cb", &[], 400),
        ("DELETE", "/a.bin", &[], 405),
        ("GET", "/c", &[("cache-control", "only-if-cached")], 504),
    ] {
        let answer = edge.ask(method, path, fields).await;
        assert_eq!(answer.status, expected, "{method} {path}");
        for (name, value) in EMBEDDED {
            assert_eq!(answer.field(name), Some(value), "{method} {path} {expected}");
        }
        assert_eq!(answer.head.matches("access-control-allow-origin").count(), 1);
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_answered_without_the_origin() {
    let bucket = TestBucket::start().await;
    let edge = TestEdge::start(&bucket, "preset = \"embed\"").await;
    let asking = [
        ("origin", "https://a.test"),
        ("access-control-request-method", "GET"),
    ];
    let answer = edge.ask("OPTIONS", "/a.js", &asking).await;
    assert_eq!(
        (answer.status, answer.field("access-control-max-age")),
        (204, Some("86400"))
    );
    assert_eq!(
        answer.field("access-control-allow-methods"),
        Some("GET, HEAD, OPTIONS")
    );
    let bare = edge.ask("OPTIONS", "/a.js", &[]).await;
    assert_eq!(
        (bare.status, bare.field("allow")),
        (405, Some("GET, HEAD, OPTIONS"))
    );
    assert!(bucket.asked("a.js").is_empty());
    let plain = TestEdge::start(&bucket, "preset = \"plain\"").await;
    assert_eq!(plain.ask("OPTIONS", "/a.js", &asking).await.status, 405);
    edge.stop().await;
    plain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said_in_the_media_type_that_the_page_expects() {
    let bucket = TestBucket::start().await;
    let edge = TestEdge::start(&bucket, "preset = \"embed\"").await;
    for (path, media_type, begins) in [
        ("/a.js", "text/javascript; charset=utf-8", "console.error(\"404"),
        ("/a.mjs", "text/javascript; charset=utf-8", "console.error(\"404"),
        ("/a.css", "text/css; charset=utf-8", "/* 404"),
        ("/a.json", "application/problem+json", "{"),
        ("/a.js.map", "application/problem+json", "{"),
        ("/page.html", "text/html; charset=utf-8", "<!doctype html>"),
        ("/dir/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/a.woff2", "text/plain; charset=utf-8", "404"),
    ] {
        for round in ["first", "stored"] {
            let answer = edge.get(path, &[]).await;
            assert_eq!(
                (answer.status, answer.field("content-type")),
                (404, Some(media_type)),
                "{path} {round}"
            );
            assert!(
                answer.text().starts_with(begins),
                "{path} {round}: {}",
                answer.text()
            );
            assert!(
                !answer.text().contains("NoSuchKey") && answer.field("etag").is_none(),
                "{path} {round}"
            );
        }
        let head = edge.ask("HEAD", path, &[]).await;
        assert_eq!(
            (head.status, head.field("content-type")),
            (404, Some(media_type)),
            "{path} HEAD"
        );
        let coded = edge
            .get(path, &[("accept-encoding", "br"), ("range", "bytes=0-1")])
            .await;
        assert_eq!(
            (coded.status, coded.field("content-encoding")),
            (404, None),
            "{path}"
        );
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_that_a_site_does_not_serve_are_named_and_never_forwarded() {
    let bucket = TestBucket::start().await;
    let edge = TestEdge::start(&bucket, "preset = \"plain\"").await;
    for method in ["PUT", "DELETE", "PATCH", "PURGE", "PROPFIND", "OPTIONS", "get"] {
        let answer = edge.ask(method, "/a.js", &[]).await;
        assert_eq!(
            (answer.status, answer.field("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
    assert!(bucket.asked("a.js").is_empty());
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_ends_with_a_slash_shows_its_index() {
    let bucket = TestBucket::start().await;
    bucket.put("index.html", "top", "max-age=60").await;
    bucket.put("docs/index.html", "docs", "max-age=60").await;
    let edge = TestEdge::start(&bucket, "index = \"index.html\"").await;
    for (path, text) in [("/", "top"), ("/docs/", "docs"), ("/index.html", "top")] {
        let answer = edge.get(path, &[]).await;
        assert_eq!((answer.status, answer.text()), (200, text), "{path}");
        assert_eq!(
            answer.field("content-type"),
            Some("text/html; charset=utf-8"),
            "{path}"
        );
    }
    assert_eq!(bucket.asked("index.html").len(), 1, "one object, one key");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rules_fields_stand_on_every_answer_below_its_path() {
    let bucket = TestBucket::start().await;
    bucket.put("v/a.js", "x", "max-age=60").await;
    let site = "[[site.rule]]\npath = \"/v/*\"\nfields = { \"Cache-Control\" = \"public, max-age=31536000, immutable\", X-A = \"1\" }";
    let edge = TestEdge::start(&bucket, site).await;
    for path in ["/v/a.js", "/v/a.js"] {
        let answer = edge.get(path, &[]).await;
        assert_eq!(
            answer.field("cache-control"),
            Some("public, max-age=31536000, immutable")
        );
        assert_eq!(answer.field("x-a"), Some("1"));
    }
    let missing = edge.get("/v/none.js", &[]).await;
    assert_eq!(missing.status, 404);
    let refused = edge.ask("DELETE", "/v/a.js", &[]).await;
    assert_eq!(refused.status, 405);
    for answer in [missing, refused] {
        let said = answer.field("cache-control").unwrap_or_default();
        assert!(
            !said.contains("immutable"),
            "a failure is not immutable: {}",
            answer.head
        );
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transport_security_is_said_over_tls_alone() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x", "max-age=60").await;
    let folder = tempfile::tempdir().unwrap();
    let now = edge::clock::Clock::real().now().to_system_time();
    let ca = certs::DevCa::open_or_create(folder.path(), now).unwrap();
    let pair = ca.issue(&["localhost".into()], &[], now).unwrap();
    let edge = TestEdge::start_with(&bucket, "hsts = \"365d\"", "", |config| {
        config.listen = Listen {
            https: vec!["127.0.0.1:0".parse().unwrap()],
            ..config.listen.clone()
        };
        config.certificates = vec![CertificateFiles {
            chain: pair.chain.clone(),
            key: pair.key.clone(),
            default: true,
        }];
        config.sites[0].hosts.push("localhost".into());
    })
    .await;
    let address = edge
        .node
        .addresses()
        .iter()
        .find(|(kind, _)| *kind == Kind::Https)
        .unwrap()
        .1;
    let mut client = TestClient::tls(address, &ca.certificate(), &["http/1.1"]).await;
    for (path, expected) in [("/a.js", 200), ("/a.js", 200), ("/none", 404)] {
        client
            .send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status, expected);
        assert_eq!(
            answer.field("strict-transport-security"),
            Some("max-age=31536000"),
            "{path}"
        );
    }
    assert_eq!(
        edge.get("/a.js", &[]).await.field("strict-transport-security"),
        None
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_is_that_of_the_response_and_its_date_stays() {
    let bucket = TestBucket::start().await;
    let (edge, _, whole) = filled(&bucket, "").await;
    edge.clock.advance(std::time::Duration::from_millis(12_900));
    for fields in [&[][..], &[("range", "bytes=0-9")], &[("if-none-match", "*")]] {
        let answer = edge.get("/a.bin", fields).await;
        let age: u64 = answer.field("age").unwrap().parse().unwrap();
        assert!((12..=14).contains(&age), "{age}");
        assert_eq!(answer.field("date"), whole.field("date"));
        assert!(answer.field("via").is_some());
    }
    edge.stop().await;
}
