//! What one client says is never what the next one gets: fields that are no part of the key, hosts and targets that
//! contradict each other, HEAD, ranges, and a Vary that knows no end.

use std::time::Duration;

use super::application::{Act, Application, Seen, answer, ok};
use crate::client::Answer;
use crate::support::{HOST, TestEdge, request};

const KEPT: &str = "cache-control: max-age=60\r\n";

fn is_hit(answer: &Answer) -> bool {
    answer
        .field("cache-status")
        .is_some_and(|status| status.contains("; hit"))
}

/// Answers with what `script` makes of each request.
async fn saying(script: impl Fn(&Seen) -> Vec<u8> + Clone + Send + Sync + 'static) -> Application {
    Application::start(move |seen| vec![Act::Send(script(seen))]).await
}

/// An application that believes whatever it is told, and writes it into pages that may be stored.
async fn gullible() -> Application {
    saying(|seen| ok(KEPT, &seen.head)).await
}

/// Sends a request written by hand.
async fn raw(edge: &TestEdge, request: &str) -> Answer {
    let mut client = edge.client().await;
    client.send(request).await;
    client.answer().await
}

/// Fields that applications take for the truth about host, port, scheme, path, method or client.
const CLAIMS: &[(&str, &str)] = &[
    ("x-forwarded-host", "evil.test"),
    ("x-forwarded-server", "evil.test"),
    ("x-forwarded-scheme", "evil"),
    ("x-forwarded-proto", "evil"),
    ("x-forwarded-ssl", "evil"),
    ("x-forwarded-port", "666"),
    ("x-forwarded-prefix", "/evil"),
    ("x-forwarded-path", "/evil"),
    ("x-forwarded-for", "6.6.6.6"),
    ("x-forwarded", "host=evil.test"),
    ("forwarded", "host=evil.test;proto=evil"),
    ("x-original-url", "/evil"),
    ("x-original-host", "evil.test"),
    ("x-original-method", "EVIL"),
    ("x-rewrite-url", "/evil"),
    ("x-host", "evil.test"),
    ("x-http-host-override", "evil.test"),
    ("x-http-destinationurl", "http://evil.test/"),
    ("x-http-method-override", "EVIL"),
    ("x-http-method", "EVIL"),
    ("x-method-override", "EVIL"),
    ("x-url-scheme", "evil"),
    ("x-scheme", "evil"),
    ("x-server-name", "evil.test"),
    ("x-proxy-url", "http://evil.test/"),
    ("proxy", "http://evil.test/"),
    ("x-middleware-subrequest", "evil"),
    ("front-end-https", "evil"),
    ("x-real-ip", "6.6.6.6"),
    ("x-client-ip", "6.6.6.6"),
    ("x-remote-addr", "6.6.6.6"),
    ("true-client-ip", "6.6.6.6"),
    ("client-ip", "6.6.6.6"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_in_a_field_outside_the_key_reaches_no_application_and_no_other_client() {
    let app = gullible().await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    let is_clean = |text: &str| {
        let text = text.to_ascii_lowercase();
        !["evil", "666", "6.6.6.6"]
            .iter()
            .any(|claim| text.contains(claim))
    };
    for (name, value) in CLAIMS {
        // However the name is written, and in the company of itself.
        for spelling in [(*name).to_owned(), name.to_ascii_uppercase()] {
            let path = format!("/{spelling}");
            let attack = edge.get(&path, &[(&spelling, value), (&spelling, value)]).await;
            assert_eq!(attack.status, 200, "{name}");
            assert!(is_clean(attack.text()), "{name}: {}", attack.text());
            let innocent = edge.get(&path, &[]).await;
            assert!(is_hit(&innocent), "{name} is no part of the key");
            assert_eq!(innocent.body, attack.body, "{name}");
        }
    }
    assert!(app.seen().iter().all(|seen| is_clean(&seen.head)));
    assert_eq!(app.seen().len(), 2 * CLAIMS.len(), "each page was asked for once");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_host_but_the_sites_own_reaches_an_application_that_is_told_the_clients() {
    let app = gullible().await;
    let edge = TestEdge::start_http(&format!("{}\nhost = \"preserve\"", app.url()), "", "").await;
    // Each with the status it gets; what is answered at all is answered as the site.
    let cases: &[(&str, u16)] = &[
        ("GET {} HTTP/1.1\r\nHost: cdn.test:1337\r\n\r\n", 200),
        ("GET {} HTTP/1.1\r\nHost: CDN.test.\r\n\r\n", 200),
        ("GET http://cdn.test{} HTTP/1.1\r\nHost: evil.test\r\n\r\n", 200),
        (
            "GET http://cdn.test:666{} HTTP/1.1\r\nHost: cdn.test\r\n\r\n",
            200,
        ),
        ("GET http://evil.test{} HTTP/1.1\r\nHost: cdn.test\r\n\r\n", 421),
        ("GET {} HTTP/1.1\r\nHost: evil.test\r\n\r\n", 421),
        (
            "GET {} HTTP/1.1\r\nHost: cdn.test\r\nHost: evil.test\r\n\r\n",
            400,
        ),
        (
            "GET {} HTTP/1.1\r\nHost: evil.test\r\nHost: cdn.test\r\n\r\n",
            400,
        ),
        ("GET {} HTTP/1.1\r\nHost: cdn.test\r\nHost: cdn.test\r\n\r\n", 400),
        ("GET {} HTTP/1.1\r\nHost: cdn.test, evil.test\r\n\r\n", 400),
        ("GET {} HTTP/1.1\r\nHost: cdn.test:evil\r\n\r\n", 400),
        ("GET {} HTTP/1.1\r\nHost: cdn.test/evil\r\n\r\n", 400),
        ("GET {} HTTP/1.1\r\nHost: evil@cdn.test\r\n\r\n", 400),
        (
            "GET {} HTTP/1.1\r\nHost: cdn.test\r\n Host: evil.test\r\n\r\n",
            400,
        ),
        (
            "GET {} HTTP/1.1\r\nHost : evil.test\r\nHost: cdn.test\r\n\r\n",
            400,
        ),
        (
            "GET http://evil@cdn.test{} HTTP/1.1\r\nHost: cdn.test\r\n\r\n",
            400,
        ),
        ("GET gopher://cdn.test{} HTTP/1.1\r\nHost: cdn.test\r\n\r\n", 400),
        ("GET @evil.test{} HTTP/1.1\r\nHost: cdn.test\r\n\r\n", 400),
        ("GET evil.test{} HTTP/1.1\r\nHost: cdn.test\r\n\r\n", 400),
    ];
    for (number, (text, status)) in cases.iter().enumerate() {
        let path = format!("/{number}");
        let attack = raw(&edge, &text.replace("{}", &path)).await;
        assert_eq!(attack.status, *status, "{text}");
        let innocent = edge.get(&path, &[]).await;
        assert_eq!(innocent.status, 200, "after {text}");
        assert_eq!(is_hit(&innocent), *status == 200, "after {text}");
        assert!(!innocent.text().contains("evil"), "{}", innocent.text());
    }
    for seen in app.seen() {
        assert_eq!(seen.field("host").as_deref(), Some(HOST), "{}", seen.head);
        assert!(
            !seen.head.contains("evil") && !seen.head.contains("1337"),
            "{}",
            seen.head
        );
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_one_clients_fields_bring_about_is_not_kept_for_others() {
    // CPDoS: a field that the cache takes and the application chokes on, with an error that may be stored.
    let app = saying(|seen| {
        let is_odd = seen.field("x-long").is_some_and(|value| value.len() > 4000)
            || seen.field("x-meta").is_some()
            || seen.field("x-http-method-override").is_some();
        match is_odd {
            true => answer("400 Bad Request", "", "choked"),
            false => ok(KEPT, "fine"),
        }
    })
    .await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    let long = "a".repeat(6000);
    for (path, field, status) in [
        ("/long", ("x-long", &*long), 400),
        ("/meta", ("x-meta", "a\tb"), 400),
        ("/method", ("x-http-method-override", "POST"), 200),
    ] {
        assert_eq!(edge.get(path, &[field]).await.status, status, "{path}");
        assert_eq!(edge.get(path, &[]).await.text(), "fine", "{path}");
    }
    // What is too large for us is refused here, and nobody else hears of it.
    let huge = "a".repeat(100_000);
    assert_eq!(edge.get("/huge", &[("x-huge", &huge)]).await.status, 431);
    let asked = app.seen().len();
    assert_eq!(edge.get("/huge", &[]).await.text(), "fine");
    assert_eq!(app.seen().len(), asked + 1);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_poisons_no_get() {
    // To HEAD everything is another thing: an error, a redirection, an empty page, and other fields.
    let cases: &[(&str, &str)] = &[
        (
            "/error",
            "HTTP/1.1 500 Oops\r\ncontent-length: 4\r\ncache-control: max-age=60\r\n\r\n",
        ),
        (
            "/gone",
            "HTTP/1.1 410 Gone\r\ncontent-length: 0\r\ncache-control: max-age=60\r\n\r\n",
        ),
        (
            "/moved",
            "HTTP/1.1 301 Moved\r\nlocation: https://evil.test/\r\ncontent-length: 0\r\ncache-control: max-age=60\r\n\r\n",
        ),
        (
            "/empty",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ncache-control: max-age=60\r\netag: \"evil\"\r\n\r\n",
        ),
        (
            "/fields",
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncache-control: max-age=60\r\netag: \"evil\"\r\ncontent-type: text/html\r\n\r\n",
        ),
        (
            "/coded",
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncache-control: max-age=60\r\netag: \"evil\"\r\ncontent-encoding: gzip\r\n\r\n",
        ),
    ];
    let app = saying(move |seen| match seen.line().starts_with("HEAD") {
        true => {
            let path = seen.line().split(' ').nth(1).unwrap();
            let found = cases.iter().find(|(case, _)| *case == path);
            found.unwrap().1.as_bytes().to_vec()
        }
        false => ok(
            "cache-control: max-age=60\r\ncontent-type: text/plain\r\netag: \"good\"\r\n",
            "good",
        ),
    })
    .await;
    // Cold, with a fresh page that is held, and with one that has gone stale.
    for waits in [None, Some(0), Some(61)] {
        let edge = TestEdge::start_http(&app.url(), "", "").await;
        for (path, _) in cases {
            if let Some(seconds) = waits {
                assert_eq!(edge.get(path, &[]).await.text(), "good");
                edge.clock.advance(Duration::from_secs(seconds));
            }
            edge.ask("HEAD", path, &[]).await;
            for _ in 0..2 {
                let get = edge.get(path, &[]).await;
                let fields = (
                    get.field("content-type"),
                    get.field("etag"),
                    get.field("content-encoding"),
                );
                assert_eq!((get.status, get.text()), (200, "good"), "{path} {waits:?}");
                assert_eq!(
                    fields,
                    (Some("text/plain"), Some("\"good\""), None),
                    "{path} {waits:?}"
                );
                assert_eq!(get.field("location"), None, "{path} {waits:?}");
            }
        }
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_behind_the_answer_to_a_head_is_nobodys_answer() {
    // A server that sends content where there is none: what it says there could be taken for the next answer.
    let app = Application::start(|seen| {
        let text = match seen.line().split(' ').next().unwrap() {
            "HEAD" => "HTTP/1.1 200 OK\r\ncontent-length: 41\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood",
        };
        vec![Act::Send(text.into())]
    })
    .await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    for number in 0..4 {
        let head = edge.ask("HEAD", &format!("/h{number}"), &[]).await;
        assert_eq!((head.status, head.field("content-length")), (200, Some("41")));
        assert_eq!(edge.get(&format!("/g{number}"), &[]).await.text(), "good");
        assert_eq!(edge.ask("POST", "/p", &[]).await.text(), "good");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_poisons_no_whole_response() {
    const WHOLE: &str = "0123456789";
    // What a server may say to a range, all of it to be kept for a minute.
    let said = |case: &str| -> Vec<u8> {
        let part = |range: &str, body: &str| {
            answer(
                "206 Partial Content",
                &format!("{KEPT}etag: \"a\"\r\ncontent-range: {range}\r\n"),
                body,
            )
        };
        match case {
            "/part" => part("bytes 0-0/10", "0"),
            "/total" => part("bytes 0-0/1", "0"),
            "/unknown" => part("bytes 0-0/*", "0"),
            "/elsewhere" => part("bytes 5-5/10", "5"),
            "/short" => part("bytes 0-9/10", "0"),
            "/none" => answer("206 Partial Content", KEPT, "0"),
            "/416" => answer(
                "416 Range Not Satisfiable",
                &format!("{KEPT}content-range: bytes */10\r\n"),
                "no",
            ),
            "/400" => answer("400 Bad Request", KEPT, "no"),
            "/500" => answer("500 Oops", KEPT, "no"),
            _ => ok(&format!("{KEPT}etag: \"a\"\r\n"), WHOLE),
        }
    };
    let app = saying(move |seen| match seen.field("range") {
        Some(_) => said(seen.line().split(' ').nth(1).unwrap()),
        None => ok(&format!("{KEPT}etag: \"a\"\r\n"), WHOLE),
    })
    .await;
    for path in [
        "/part",
        "/total",
        "/unknown",
        "/elsewhere",
        "/short",
        "/none",
        "/416",
        "/400",
        "/500",
        "/whole",
    ] {
        for range in ["bytes=0-0", "bytes=99-", "bytes=-1"] {
            let edge = TestEdge::start_http(&app.url(), "", "").await;
            let mut client = edge.client().await;
            client.send(request("GET", path, &[("range", range)])).await;
            let _ = client.try_answer(false).await;
            let innocent = edge.get(path, &[]).await;
            assert_eq!((innocent.status, innocent.text()), (200, WHOLE), "{path} {range}");
            let head = edge.ask("HEAD", path, &[]).await;
            assert_eq!(
                (head.status, head.field("content-range")),
                (200, None),
                "{path} {range}"
            );
            let ranged = edge.get(path, &[("range", "bytes=2-3")]).await;
            assert_eq!((ranged.status, ranged.text()), (206, "23"), "{path} {range}");
            edge.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vary_without_end_is_kept_for_nobody() {
    let many: String = (0..100).map(|n| format!("x-{n}, ")).collect();
    let app = saying(move |seen| {
        let vary = match seen.line().contains("/many") {
            true => format!("vary: {many}x-v\r\n"),
            false => "vary: x-v\r\n".to_owned(),
        };
        ok(&format!("{KEPT}{vary}"), &seen.field("x-v").unwrap_or_default())
    })
    .await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    let long = "v".repeat(4000);
    for (path, value) in [("/many", "a"), ("/long", &*long)] {
        for _ in 0..2 {
            let answer = edge.get(path, &[("x-v", value)]).await;
            assert_eq!((answer.status, answer.text()), (200, value), "{path}");
            let status = answer.field("cache-status").unwrap();
            assert!(status.ends_with("detail=vary-too-wide"), "{path}: {status}");
            assert_eq!(
                edge.get(path, &[("x-v", "other")]).await.text(),
                "other",
                "{path}"
            );
        }
    }
    // Of a thousand variants with values as long as may be, a few stay, and the memory they take is little.
    for n in 0..1000 {
        let value = format!("{n:0>500}");
        assert_eq!(edge.get("/a", &[("x-v", &value)]).await.text(), value);
    }
    let memory = &edge.exchange().cache().memory;
    let variants = memory.find(&edge.key("/a")).unwrap().variants().len();
    assert!((1..=8).contains(&variants), "{variants}");
    assert!(memory.bytes() < 64 << 10, "{} bytes", memory.bytes());
    edge.stop().await;
}
