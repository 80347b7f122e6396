//! Cache deception: a path that the application takes for somebody's account and a cache takes for a script. What is kept
//! is what the origin says may be kept, whatever the path looks like, and a path is one thing to all of us or refused.

use super::application::{Act, Application, Seen, ok};
use crate::support::TestEdge;

/// An application that routes by how paths begin, as many do, and shows whose session it is.
async fn routes_by_prefix(control: &'static str) -> Application {
    Application::start(move |seen| {
        let path = seen.line().split(' ').nth(1).unwrap_or_default().to_owned();
        let who = seen.field("cookie").unwrap_or_else(|| "nobody".to_owned());
        let page = match path.trim_start_matches('/').starts_with("account") {
            true => ok(control, &format!("account of {who}")),
            false => ok("cache-control: max-age=60\r\n", "public"),
        };
        vec![Act::Send(page)]
    })
    .await
}

fn paths(seen: &[Seen]) -> Vec<String> {
    let path = |seen: &Seen| seen.line().split(' ').nth(1).unwrap_or_default().to_owned();
    seen.iter().map(path).collect()
}

/// Ways to make an account look like a script.
const LURES: &[&str] = &[
    "/account/x.css",
    "/account/x.js?v=1",
    "/account;x.css",
    "/account%3bx.css",
    "/account%23x.css",
    "/account%3fx.css",
    "/account!x.css",
    "/account~x.css",
    "/account%20x.css",
    "/account%26x.css",
    "/account%25x.css",
    "/account.css",
    "/account%2ecss",
    "/account//x.css",
    "//account/x.css",
    "/account?x.css",
    "/account/favicon.ico",
    "/account/robots.txt",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_lure_is_kept_for_nobody_and_reaches_the_application_as_it_was_written() {
    for control in [
        "",
        "cache-control: private, max-age=60\r\n",
        "cache-control: no-store\r\n",
    ] {
        let app = routes_by_prefix(control).await;
        let edge = TestEdge::start_http(&app.url(), "query = \"keep\"", "").await;
        for path in LURES {
            let victim = edge.get(path, &[("cookie", "victim")]).await;
            assert_eq!(
                (victim.status, victim.text()),
                (200, "account of victim"),
                "{path}"
            );
            let attacker = edge.get(path, &[]).await;
            assert_eq!(attacker.text(), "account of nobody", "{path} {control:?}");
            let lured = paths(&app.seen());
            let expected = match *path {
                // The one spelling of an unreserved character (RFC 3986, 6.2.2.2).
                "/account%2ecss" => "/account.css",
                path => path,
            };
            let expected = expected.replace("%3b", "%3B").replace("%3f", "%3F");
            assert_eq!(
                lured.last().unwrap().replace("%3b", "%3B").replace("%3f", "%3F"),
                expected
            );
        }
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_for_scripts_keeps_no_account_that_has_a_cookie_or_says_it_is_private() {
    let rule = "[[site.rule]]\npath = \"/account*\"\nttl = \"1h\"\n";
    for control in [
        "cache-control: private\r\n",
        "cache-control: no-store\r\n",
        "set-cookie: session=victim\r\n",
    ] {
        let app = routes_by_prefix(control).await;
        let edge = TestEdge::start_http(&app.url(), "strict = false", rule).await;
        for path in ["/account/x.css", "/account;x.css", "/account.css"] {
            edge.get(path, &[("cookie", "victim")]).await;
            let attacker = edge.get(path, &[]).await;
            assert_eq!(attacker.text(), "account of nobody", "{path} {control:?}");
        }
        edge.stop().await;
    }
}

/// Paths that an application, a proxy before it or a file system could take for `/account`.
const REFUSED: &[&str] = &[
    "/static/../account",
    "/static/..%2faccount",
    "/static%2f..%2faccount",
    "/static/%2e%2e/account",
    "/static/.%2E/account",
    "/static/%2e%2e%2faccount",
    "/static/..\\account",
    "/static/..%5caccount",
    "/static%5c..%5caccount",
    "\\account",
    "/\\account",
    "/./account",
    "/account/.",
    "/account/..",
    "/account%00.css",
    "/account%0a.css",
    "/account%0d%0ax.css",
    "/account%2fx.css",
    "/account%c0%afx.css",
    "/account%u002fx.css",
    "/account%",
    "/static/..;/account",
    "/static/..%3b/account",
    "/static/.;x/account",
    "/account#x.css",
    "/account\tx.css",
    "/account x.css",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_could_be_read_as_another_reaches_no_application() {
    let app = routes_by_prefix("cache-control: max-age=60\r\n").await;
    let edge = TestEdge::start_http(&app.url(), "", "").await;
    for path in REFUSED {
        for method in ["GET", "POST"] {
            let answer = edge.ask(method, path, &[("cookie", "victim")]).await;
            assert_eq!(answer.status, 400, "{method} {path}");
            assert!(
                !String::from_utf8_lossy(&answer.body).contains("victim"),
                "{path}"
            );
        }
    }
    assert!(app.seen().is_empty(), "{:?}", paths(&app.seen()));
    // What is decoded once, as it is here, is no dot segment.
    for path in ["/...", "/static/..x;/account", "/static/%252e%252e/account"] {
        let answer = edge.get(path, &[("cookie", "victim")]).await;
        assert_eq!((answer.status, answer.text()), (200, "public"), "{path}");
        assert_eq!(paths(&app.seen()).last().unwrap(), path);
    }
    edge.stop().await;
}
