//! What a response is stored under, and what of a request never reaches the bucket.

use crate::client::Answer;
use crate::scripted::{self, Scripted};
use crate::support::{HOST, TestBucket, TestEdge, request};

/// Asks with a request written by hand.
async fn raw(edge: &TestEdge, request: &str) -> Answer {
    let mut client = edge.client().await;
    client.send(request).await;
    client.answer().await
}

fn is_hit(answer: &Answer) -> bool {
    answer
        .field("cache-status")
        .is_some_and(|status| status.contains("; hit"))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sites_with_the_same_path_never_share_an_answer() {
    let bucket = TestBucket::start().await;
    bucket.put("one/a.js", "one", "max-age=60").await;
    bucket.put("two/a.js", "two", "max-age=60").await;
    let address = bucket.address();
    let origin = |name: &str| {
        format!(
            "[origin.{name}]\nkind = \"s3\"\ncredentials = \"anonymous\"\nbuckets = [{{ name = \"assets\", region = \"us-east-1\", \
             endpoint = \"http://{address}\", path_style = true, prefix = \"{name}/\" }}]\n"
        )
    };
    let tables = format!(
        "[[site]]\nhosts = [\"one.test\", \"*.one.test\"]\norigin = \"one\"\n[[site]]\nhosts = [\"two.test\"]\norigin = \"two\"\n\
         [[site]]\nhosts = [\"again.test\"]\norigin = \"one\"\n{}{}",
        origin("one"),
        origin("two")
    );
    let edge = TestEdge::start_with(&bucket, "", &tables, |_| {}).await;
    let ask = |host: &str| request("GET", "/a.js", &[]).replace(HOST, host);
    for _ in 0..2 {
        for (host, text) in [
            ("one.test", "one"),
            ("two.test", "two"),
            ("x.one.test", "one"),
            ("ONE.test:80", "one"),
        ] {
            let answer = raw(&edge, &ask(host)).await;
            assert_eq!((answer.status, answer.text()), (200, text), "{host}");
        }
    }
    assert_eq!(
        bucket.asked("one/a.js").len(),
        1,
        "the names of one site share what is stored"
    );
    assert!(
        !is_hit(&raw(&edge, &ask("again.test")).await),
        "another site of the same origin does not"
    );
    assert_eq!(raw(&edge, &ask("three.test")).await.status, 421);
    edge.stop().await;
}

/// Fields that frameworks and proxies take for the truth about the request.
const UNKEYED: [(&str, &str); 20] = [
    ("x-forwarded-host", "evil.test"),
    ("x-forwarded-scheme", "http"),
    ("x-forwarded-proto", "http"),
    ("x-forwarded-for", "1.2.3.4"),
    ("x-forwarded-port", "1"),
    ("x-forwarded-prefix", "/evil"),
    ("x-original-url", "/evil.js"),
    ("x-rewrite-url", "/evil.js"),
    ("x-original-host", "evil.test"),
    ("x-host", "evil.test"),
    ("x-http-method-override", "DELETE"),
    ("x-method-override", "POST"),
    ("forwarded", "host=evil.test;proto=http"),
    ("origin", "https://evil.test"),
    ("referer", "https://evil.test/"),
    ("user-agent", "evil"),
    ("cookie", "session=1"),
    ("accept-language", "xx"),
    ("x-amz-security-token", "evil"),
    ("x-amz-server-side-encryption-customer-key", "evil"),
];

#[tokio::test(flavor = "multi_thread")]
async fn fields_outside_the_key_change_nothing_and_reach_no_bucket() {
    let bucket = TestBucket::start().await;
    let origin =
        Scripted::start(|_| scripted::ok("cache-control: max-age=60\r\netag: \"a\"\r\n", b"good")).await;
    let edge = TestEdge::start_with(&bucket, "", "", |config| origin.stand_in(config)).await;
    let plain = edge.get("/a.png", &[]).await;
    let lines = |answer: &Answer| -> Vec<String> {
        let made_anew = ["cache-status", "age", "date"];
        let lines = answer
            .head
            .lines()
            .filter(|line| !made_anew.iter().any(|name| line.starts_with(name)));
        lines.map(str::to_owned).collect()
    };
    for (name, value) in UNKEYED {
        let path = format!("/{name}.png");
        for cold_or_warm in 0..2 {
            let answer = edge.get(&path, &[(name, value)]).await;
            assert_eq!(
                (&answer.body, lines(&answer)),
                (&plain.body, lines(&plain)),
                "{name} {cold_or_warm}"
            );
        }
        assert!(
            is_hit(&edge.get(&path, &[]).await),
            "{name} is no part of the key"
        );
    }
    for head in origin.heads() {
        let lower = head.to_ascii_lowercase();
        assert!(
            !lower.contains("evil") && !lower.contains("cookie:") && !lower.contains("1.2.3.4"),
            "{head}"
        );
        assert!(lower.starts_with("get /assets/"), "{head}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_cannot_take_fields_away_that_matter() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x", "max-age=60").await;
    let edge = TestEdge::start(&bucket, "").await;
    let etag = edge.get("/a.js", &[]).await.field("etag").unwrap().to_owned();
    for abuse in [
        "host, if-none-match",
        "host",
        "if-none-match, close",
        "cache-control, x-a, keep-alive",
        "accept-encoding",
    ] {
        let answer = edge
            .get("/a.js", &[("connection", abuse), ("if-none-match", &etag)])
            .await;
        assert!([200, 304].contains(&answer.status), "{abuse}: {}", answer.head);
        let good = edge.get("/a.js", &[]).await;
        assert_eq!((good.status, good.text()), (200, "x"), "after {abuse}");
        assert!(is_hit(&good), "after {abuse}");
    }
    assert_eq!(bucket.asked("a.js").len(), 1);
    edge.stop().await;
}

/// Paths that different software reads differently.
const REFUSED: &[&str] = &[
    "/..",
    "/../secret",
    "/x/../secret",
    "/x/./secret",
    "/./secret",
    "/x/..",
    "/%2e%2e/secret",
    "/x/%2e%2E/secret",
    "/x/.%2e/secret",
    "/%2e/secret",
    "/..%2fsecret",
    "/x%2f..%2fsecret",
    "/x%2fsecret",
    "/x%5csecret",
    "/x\\secret",
    "/..\\secret",
    "/a%00.js",
    "/a.js%00.css",
    "/a%0d%0ax",
    "/a%7fb",
    "/%c0%ae%c0%ae/secret",
    "/%e0%80%ae/secret",
    "/%ff",
    "/%",
    "/%4",
    "/%zz",
    "/%u002e",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_refused_or_names_exactly_one_object() {
    let bucket = TestBucket::start().await;
    bucket.put("secret", "secret", "max-age=60").await;
    bucket.put("a.js", "script", "max-age=60").await;
    let edge = TestEdge::start(&bucket, "").await;
    for path in REFUSED {
        let answer = edge.get(path, &[]).await;
        assert_eq!(
            (answer.status, answer.field("cache-control")),
            (400, Some("no-store")),
            "{path}"
        );
    }
    assert!(bucket_keys(&bucket).is_empty(), "{:?}", bucket_keys(&bucket));
    for (path, key) in [
        ("//a.js", "/a.js"),
        ("/x//a.js", "x//a.js"),
        ("/a.js/", "a.js/"),
        ("/a.js/x.css", "a.js/x.css"),
        ("/a.js;x.css", "a.js;x.css"),
        ("/a.js%3bx.css", "a.js;x.css"),
        ("/a.js%23x.css", "a.js#x.css"),
        ("/a.js%3fx.css", "a.js?x.css"),
        ("/a.js%0a", ""),
        ("/...", "..."),
        ("/..a", "..a"),
        ("/%252e%252e/secret", "%2e%2e/secret"),
        ("/a+b", "a+b"),
        ("/a%2bb", "a+b"),
    ] {
        let answer = edge.get(path, &[]).await;
        let expected = if key.is_empty() { 400 } else { 404 };
        assert_eq!(answer.status, expected, "{path}");
        if !key.is_empty() {
            assert!(
                bucket_keys(&bucket).contains(&key.to_owned()),
                "{path}: {:?}",
                bucket_keys(&bucket)
            );
        }
    }
    let dotted = |key: &String| key.split('/').any(|segment| segment == "." || segment == "..");
    assert!(!bucket_keys(&bucket).iter().any(dotted));
    assert_eq!(edge.get("/%61.js", &[]).await.text(), "script");
    assert!(
        is_hit(&edge.get("/a.js", &[]).await),
        "two spellings of one path are one key"
    );
    edge.stop().await;
}

/// Every key that the bucket was asked for.
fn bucket_keys(bucket: &TestBucket) -> Vec<String> {
    bucket.log().into_iter().map(|seen| seen.key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_query_takes_part_as_the_site_says_and_never_reaches_the_bucket() {
    for (site, same, other) in [
        ("query = \"ignore\"", &["?a=1", "?b", "?", ""][..], &[][..]),
        ("query = \"keep\"", &["?a=1"], &["?a=2", "?b&a=1", ""]),
        (
            "query = \"sort\"",
            &["?a=1&b=2", "?b=2&a=1"],
            &["?a=1", "?a=2&b=2"],
        ),
        (
            "query = [\"v\"]",
            &["?v=1", "?v=1&utm=x", "?x&v=1"],
            &["?v=2", ""],
        ),
        ("query = [\"v\"]", &["", "?w=1"], &["?v=1"]),
    ] {
        let bucket = TestBucket::start().await;
        bucket.put("a.js", "x", "max-age=60").await;
        let edge = TestEdge::start(&bucket, site).await;
        for (place, query) in same.iter().enumerate() {
            let answer = edge.get(&format!("/a.js{query}"), &[]).await;
            assert_eq!(
                (answer.status, is_hit(&answer)),
                (200, place > 0),
                "{site} {query}"
            );
        }
        for query in other {
            let answer = edge.get(&format!("/a.js{query}"), &[]).await;
            assert!(!is_hit(&answer), "{site} {query}");
        }
        for seen in bucket.log() {
            assert_eq!(
                seen.query, "x-id=GetObject",
                "nothing but what the SDK says of itself"
            );
        }
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poisoned_paths_of_one_client_are_no_answer_for_another() {
    let bucket = TestBucket::start().await;
    bucket.put("account", "mine", "private").await;
    let edge = TestEdge::start(&bucket, "").await;
    for path in [
        "/account/x.css",
        "/account;x.css",
        "/account%3bx.css",
        "/account%23x.css",
        "/account.css",
        "/account%0a.css",
    ] {
        let answer = edge.get(path, &[("cookie", "session=1")]).await;
        assert!([400, 404].contains(&answer.status), "{path}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("mine"), "{path}");
    }
    edge.stop().await;
}
