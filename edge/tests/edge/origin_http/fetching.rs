//! GET and HEAD: what the application is asked, and which of its answers go on.

use super::application::{Act, Application, answer, idle, ok};
use crate::support::{HOST, TestEdge};

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_is_asked_once_and_then_served_from_the_cache() {
    let app = Application::saying(ok("cache-control: max-age=60\r\n", "hello")).await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    for _ in 0..3 {
        let answer = edge.get("/a?x=1", &[]).await;
        assert_eq!((answer.status, answer.text()), (200, "hello"));
    }
    let seen = app.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].line(), "GET /a?x=1 HTTP/1.1");
    assert_eq!(edge.get("/a?x=2", &[]).await.status, 200);
    assert_eq!(
        app.seen()[1].line(),
        "GET /a?x=2 HTTP/1.1",
        "the query is part of the key"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_applications_own_fields_reach_it_and_those_of_the_hop_or_of_the_cache_do_not() {
    let app = Application::saying(ok("", "hello")).await;
    let edge = TestEdge::start_http(&format!("{}\nfields = {{ X-Secret = \"s\" }}", app.url()), "", "").await;
    let fields = [
        ("accept-language", "de"),
        ("cookie", "a=1"),
        ("authorization", "Bearer x"),
        ("x-own", "1"),
        ("x-secret", "guessed"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("via", "1.0 before"),
        ("if-none-match", "\"a\""),
        ("if-modified-since", "Sun, 22 Nov 2026 00:00:00 GMT"),
        ("range", "bytes=0-1"),
        ("x-forwarded-host", "evil.test"),
        ("x-original-url", "/admin"),
        ("x-http-method-override", "DELETE"),
        ("forwarded", "host=evil.test"),
    ];
    assert_eq!(
        edge.get("/", &fields).await.status,
        206,
        "the range is ours to answer"
    );
    let seen = app.seen();
    let seen = &seen[0];
    let check =
        |name: &str, expected: Option<&str>| assert_eq!(seen.field(name).as_deref(), expected, "{name}");
    check("host", Some(&app.address.to_string()));
    check("accept-language", Some("de"));
    check("cookie", Some("a=1"));
    check("authorization", Some("Bearer x"));
    check("x-own", Some("1"));
    check("range", Some("bytes=0-1"));
    check("x-secret", Some("s"));
    check("via", Some("1.0 before, 1.1 portico"));
    for gone in [
        "connection",
        "x-hop",
        "te",
        "if-none-match",
        "if-modified-since",
        "x-forwarded-host",
        "x-original-url",
        "x-http-method-override",
        "forwarded",
    ] {
        check(gone, None);
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_is_the_urls_or_what_is_configured_and_a_prefix_comes_first() {
    let app = Application::saying(ok("", "hello")).await;
    let check = async |lines: &str, host: &str, line: &str| {
        let edge = TestEdge::start_http(lines, "", "").await;
        assert_eq!(edge.get("/a", &[]).await.status, 200);
        let seen = app.seen();
        let last = seen.last().unwrap();
        assert_eq!(last.field("host").as_deref(), Some(host), "{lines}");
        assert_eq!(last.line(), line, "{lines}");
        edge.stop().await;
    };
    let url = app.url();
    check(&url, &app.address.to_string(), "GET /a HTTP/1.1").await;
    check(
        &format!("{url}\nhost = \"app.test\""),
        "app.test",
        "GET /a HTTP/1.1",
    )
    .await;
    check(&format!("{url}\nhost = \"preserve\""), HOST, "GET /a HTTP/1.1").await;
    let prefixed = format!("url = \"http://{}/base/\"", app.address);
    check(&prefixed, &app.address.to_string(), "GET /base/a HTTP/1.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_status_of_an_application_is_its_answer() {
    let app = Application::start(|seen| {
        let status = seen.line()[5..8].to_owned();
        vec![Act::Send(answer(
            &format!("{status} Whatever"),
            "location: /elsewhere\r\n",
            "content",
        ))]
    })
    .await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    for status in [
        200, 203, 299, 301, 302, 308, 400, 404, 410, 418, 451, 499, 500, 503, 599,
    ] {
        let answer = edge.get(&format!("/{status}"), &[]).await;
        assert_eq!((answer.status, answer.text()), (status, "content"));
        assert_eq!(
            answer.field("location"),
            Some("/elsewhere"),
            "a redirect is never followed"
        );
    }
    assert_eq!(app.seen().len(), 15);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_again_and_one_that_was_closed_meanwhile_costs_no_answer() {
    let app = Application::start(|seen| {
        let mut acts = vec![Act::Send(ok("", "hello"))];
        if seen.number % 2 == 1 {
            acts.push(Act::Close);
        }
        acts
    })
    .await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    for n in 0..6 {
        assert_eq!(edge.get(&format!("/{n}"), &[]).await.text(), "hello");
        if n % 2 == 0 {
            idle(&edge, 1).await;
        }
    }
    let connections: Vec<usize> = app.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0, 1, 1, 2, 2]);
    edge.stop().await;
}
