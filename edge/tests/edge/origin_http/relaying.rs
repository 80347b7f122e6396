//! Requests that the cache has no part in: every method, with its content, there and back.

use std::sync::Arc;

use tokio::sync::Notify;

use super::application::{Act, Application, answer, idle, ok};
use crate::client::soon;
use crate::support::{HOST, TestEdge, request};

/// An application that answers with what it was asked.
async fn echo() -> Application {
    Application::start(|seen| {
        let text = format!("{} {}", seen.line(), String::from_utf8_lossy(&seen.body));
        vec![Act::Send(ok("", &text))]
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_and_its_content_reach_the_application() {
    let app = echo().await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    let mut client = edge.client().await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW", "GET"] {
        client
            .send(format!(
                "{method} /a?b=1 HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 7\r\n\r\na\n#b\r\n\n"
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.text(), format!("{method} /a?b=1 HTTP/1.1 a\n#b\r\n\n"));
        assert_eq!(
            answer.field("cache-status"),
            Some("portico; fwd=method; fwd-status=200")
        );
        let goes_on = u64::from(["POST", "PUT", "PATCH"].contains(&method));
        idle(&edge, goes_on).await;
        client
            .send(format!(
                "{method} /c HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n3\r\nx\ny\r\n1\r\nz\r\n0\r\n\r\n"
            ))
            .await;
        assert_eq!(
            client.answer().await.text(),
            format!("{method} /c HTTP/1.1 x\nyz")
        );
        idle(&edge, goes_on).await;
    }
    for method in ["POST", "DELETE", "BREW"] {
        client.send(request(method, "/e", &[])).await;
        assert_eq!(client.answer().await.text(), format!("{method} /e HTTP/1.1 "));
        idle(&edge, 1).await;
    }
    let seen = app.seen();
    assert_eq!(seen[0].field("content-length").as_deref(), Some("7"));
    assert_eq!(seen[1].field("transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(
        seen[14].field("content-length").as_deref(),
        Some("0"),
        "a POST says that it has none"
    );
    // A method that gives content no meaning may leave it unread, so nothing follows over the same connection.
    for pair in seen.windows(2) {
        let has_meaning = ["POST", "PUT", "PATCH"].contains(&pair[0].line().split(' ').next().unwrap());
        let goes_on = has_meaning || pair[0].body.is_empty();
        assert_eq!(
            pair[0].connection == pair[1].connection,
            goes_on,
            "{}",
            pair[0].line()
        );
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_told_who_asked_and_how_and_nobody_can_claim_it() {
    let app = echo().await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    let fields = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "gopher"),
        ("forwarded", "for=203.0.113.9"),
        ("x-http-method-override", "PATCH"),
        ("if-match", "\"a\""),
    ];
    assert_eq!(edge.ask("POST", "/", &fields).await.status, 200);
    let seen = app.seen();
    let check =
        |name: &str, expected: Option<&str>| assert_eq!(seen[0].field(name).as_deref(), expected, "{name}");
    check("x-forwarded-for", Some("127.0.0.1"));
    check("x-forwarded-proto", Some("http"));
    check("x-forwarded-host", Some(HOST));
    check("forwarded", None);
    check("x-http-method-override", Some("PATCH"));
    check("if-match", Some("\"a\""));
    check("via", Some("1.1 portico"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn some_methods_go_no_farther() {
    let app = echo().await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    for method in ["TRACE", "CONNECT"] {
        assert_eq!(edge.ask(method, "/", &[]).await.status, 405, "{method}");
    }
    let last = edge.ask("OPTIONS", "/", &[("max-forwards", "0")]).await;
    assert_eq!(last.status, 200);
    assert!(last.field("allow").unwrap().contains("OPTIONS"));
    assert!(app.seen().is_empty());
    assert_eq!(
        edge.ask("OPTIONS", "/", &[("max-forwards", "3")]).await.status,
        200
    );
    assert_eq!(app.seen()[0].field("max-forwards").as_deref(), Some("2"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_makes_what_is_stored_under_its_names_unusable() {
    let app = Application::start(|seen| {
        let (status, fields) = match (seen.line().starts_with("GET"), seen.line().contains("fail")) {
            (true, _) => ("200 OK", "cache-control: max-age=60\r\n"),
            (_, true) => ("500 Oops", ""),
            _ => (
                "201 Created",
                "location: /b\r\ncontent-location: http://cdn.test/c?d=1\r\nlink: </e>\r\n",
            ),
        };
        vec![Act::Send(answer(status, fields, &seen.number.to_string()))]
    })
    .await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    let paths = ["/a", "/b", "/c?d=1", "/e"];
    let mut before = Vec::new();
    for path in paths {
        before.push(edge.get(path, &[]).await.text().to_owned());
        assert_eq!(
            edge.get(path, &[]).await.text(),
            before.last().unwrap(),
            "it is stored"
        );
    }
    assert_eq!(edge.ask("POST", "/a?fail", &[]).await.status, 500);
    for (path, before) in paths.iter().zip(&before) {
        assert_eq!(
            edge.get(path, &[]).await.text(),
            before,
            "an error changes nothing"
        );
    }
    assert_eq!(edge.ask("POST", "/a", &[]).await.status, 201);
    for (at, path) in paths.iter().enumerate() {
        let changed = edge.get(path, &[]).await.text() != before[at];
        assert_eq!(changed, at < 3, "{path}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_with_content_neither_fills_the_cache_nor_is_filled_from_it() {
    let app = Application::start(|seen| {
        let text = String::from_utf8_lossy(&seen.body).into_owned();
        vec![Act::Send(ok(
            "cache-control: max-age=60\r\n",
            &format!("<{text}>"),
        ))]
    })
    .await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    let with_content = |text: &str| {
        let length = text.len();
        format!("GET / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {length}\r\n\r\n{text}")
    };
    let mut client = edge.client().await;
    for (sent, expected) in [
        (with_content("evil"), "<evil>"),
        (request("GET", "/", &[]), "<>"),
        (with_content("x"), "<x>"),
    ] {
        client.send(sent).await;
        assert_eq!(client.answer().await.text(), expected);
    }
    assert_eq!(edge.get("/", &[]).await.text(), "<>");
    assert_eq!(app.seen().len(), 3);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_over_the_limit_is_a_413_however_it_is_framed() {
    let app = echo().await;
    let edge = TestEdge::start_http(&app.url(), "", "[limits]\ncontent_bytes = \"100KiB\"\n").await;
    let size = 100 * 1024;
    let mut client = edge.client().await;
    client
        .send(format!(
            "POST /announced HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {}\r\n\r\n",
            size + 1
        ))
        .await;
    assert_eq!(client.answer().await.status, 413);
    assert!(app.seen().is_empty(), "it is refused before anybody is asked");
    let mut client = edge.client().await;
    let _ = client
        .try_send(format!(
            "POST /chunked HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
            size + 1,
            "a".repeat(size + 1)
        ))
        .await;
    assert_eq!(client.answer().await.status, 413);
    assert!(app.seen().is_empty(), "what was not whole was no request");
    let mut client = edge.client().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {size}\r\n\r\n{}",
            "a".repeat(size)
        ))
        .await;
    assert_eq!(
        client.answer().await.status,
        200,
        "what is as large as may be goes on"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_is_no_flood_and_a_slow_client_of_it_is_given_up() {
    let app = Application::start(|seen| vec![Act::Send(ok("", &seen.body.len().to_string()))]).await;
    let limits = "[limits]\nunproductive_bytes = \"64KiB\"\n";
    let edge = TestEdge::start_http(&app.url(), "", limits).await;
    let size = 4 << 20;
    let mut client = edge.client().await;
    client
        .send(format!(
            "PUT /l HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {size}\r\n\r\n{}",
            "a".repeat(size)
        ))
        .await;
    assert_eq!(client.answer().await.text(), size.to_string());
    client
        .send(format!(
            "PUT /c HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n"
        ))
        .await;
    for _ in 0..size / 4096 {
        client.send(format!("1000\r\n{}\r\n", "a".repeat(4096))).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), size.to_string());
    edge.stop().await;
    let edge = TestEdge::start_http(&app.url(), "", "[limits]\nwrite_stall = \"1s\"\n").await;
    let mut client = edge.client().await;
    client
        .send(format!(
            "PUT /s HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 10\r\n\r\nhalf"
        ))
        .await;
    assert_eq!(client.answer().await.status, 408);
    assert_eq!(app.seen().len(), 2);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_framed_as_their_status_and_method_ask() {
    let app = Application::start(|seen| {
        let text = match seen.line().split(' ').nth(1).unwrap() {
            "/204" => "HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n",
            "/303" => "HTTP/1.1 303 See Other\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n",
            "/799" => "HTTP/1.1 799 Odd\r\ncontent-length: 0\r\n\r\n",
            "/chunks" => "HTTP/1.1 299 Fine\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nx-t: 1\r\n\r\n",
            "/interim" => "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            other => panic!("{other}"),
        };
        vec![Act::Send(text.into())]
    })
    .await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    let mut client = edge.client().await;
    for (path, status, length, body) in [
        ("/204", 204, None, ""),
        ("/304", 304, None, ""),
        ("/303", 303, Some("0"), ""),
        ("/799", 502, Some("68"), ""),
        ("/chunks", 299, None, "abc"),
        ("/interim", 200, Some("2"), "ok"),
    ] {
        client.send(request("POST", path, &[])).await;
        let answer = match status {
            204 | 304 => client.answer_to_head().await,
            _ => client.answer().await,
        };
        assert_eq!(answer.status, status, "{path}");
        if status != 502 {
            assert_eq!(
                (answer.field("content-length"), answer.text()),
                (length, body),
                "{path}"
            );
        }
        assert_eq!(answer.field("x-t"), None, "a trailer section ends here");
        assert_eq!(answer.field("trailer"), None);
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_is_told_although_there_is_no_room_for_a_body() {
    let app = Application::start(|_| vec![Act::Send("HTTP/1.1 204 No Content\r\n\r\n".into())]).await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    let budget = edge.exchange().cache().budget.clone();
    let others = budget.count(budget.capacity() + 1);
    let mut client = edge.client().await;
    client.send(request("DELETE", "/a", &[])).await;
    assert_eq!(client.answer_to_head().await.status, 204);
    assert_eq!(edge.metric("edge_no_room_total"), 0);
    drop(others);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_done_already_is_never_done_twice() {
    // Every second request meets a connection that is closed without an answer.
    let app = Application::start(|seen| match seen.number % 2 {
        0 => vec![Act::Send(ok("", "fine"))],
        _ => vec![Act::Close],
    })
    .await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    assert_eq!(edge.ask("POST", "/1", &[]).await.status, 200);
    idle(&edge, 1).await;
    assert_eq!(edge.ask("POST", "/2", &[]).await.status, 502);
    assert_eq!(app.seen().len(), 2, "a POST is asked once");
    assert_eq!(edge.ask("DELETE", "/3", &[]).await.status, 200);
    idle(&edge, 1).await;
    assert_eq!(
        edge.ask("DELETE", "/4", &[]).await.status,
        200,
        "a DELETE may be asked again, on a new connection"
    );
    let lines: Vec<String> = app.seen().iter().map(|seen| seen.line().to_owned()).collect();
    assert_eq!(lines[3..], ["DELETE /4 HTTP/1.1", "DELETE /4 HTTP/1.1"]);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_streams_and_so_does_content() {
    let go = Arc::new(Notify::new());
    let goes = Arc::clone(&go);
    let app = Application::start(move |_| {
        vec![
            Act::Send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n".to_vec()),
            Act::Wait(Arc::clone(&goes)),
            Act::Send(b"4\r\nlast\r\n0\r\n\r\n".to_vec()),
        ]
    })
    .await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    let mut client = edge.client().await;
    client.send(request("POST", "/", &[])).await;
    let head = soon("the head", client.head()).await.unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(client.take(10).await.unwrap(), b"5\r\nfirst\r\n");
    go.notify_one();
    assert_eq!(client.take(14).await.unwrap(), b"4\r\nlast\r\n0\r\n\r\n");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relayed_answer_that_breaks_never_ends_cleanly() {
    for bytes in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let app = Application::start(|_| vec![Act::Send(bytes.as_bytes().to_vec()), Act::Close]).await;
        let edge = TestEdge::start_http(&app.url(), "", "").await;
        let mut client = edge.client().await;
        client.send(request("POST", "/", &[])).await;
        assert!(client.try_answer(false).await.is_none(), "{bytes:?}");
        edge.stop().await;
    }
}
