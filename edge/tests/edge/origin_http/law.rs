//! What the cache does with what an application says: validation with several responses, HEAD, parts, errors, groups,
//! fields that are for one client, and many variants.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode};

use super::application::{Act, Application, Seen, answer, ok};
use crate::client::Answer;
use crate::support::{HOST, TestEdge};

fn status(answer: &Answer) -> &str {
    answer.field("cache-status").unwrap_or_default()
}

fn is_hit(answer: &Answer) -> bool {
    status(answer).contains("; hit")
}

async fn node(app: &Application, site: &str) -> TestEdge {
    TestEdge::start_http(&app.url(), site, "").await
}

/// Answers with what `script` makes of each request.
async fn saying(script: impl Fn(&Seen) -> Vec<u8> + Clone + Send + Sync + 'static) -> Application {
    Application::start(move |seen| vec![Act::Send(script(seen))]).await
}

const NOT_MODIFIED: &str = "304 Not Modified";

#[tokio::test(flavor = "multi_thread")]
async fn every_stored_tag_is_asked_back_and_the_304_says_which_one_serves() {
    let app = saying(|seen| {
        let language = seen.field("x-language").unwrap_or_default();
        let asked = seen.field("if-none-match").unwrap_or_default();
        let fields = "cache-control: max-age=60\r\nvary: X-Language\r\n";
        match &*language {
            "at" if asked.contains("\"de\"") => answer(
                NOT_MODIFIED,
                &format!("{fields}etag: \"de\"\r\nx-news: 1\r\n"),
                "",
            ),
            // A 304 that names nothing is about none of several.
            "ch" if !asked.is_empty() => answer(NOT_MODIFIED, fields, ""),
            _ => ok(&format!("{fields}etag: \"{language}\"\r\n"), &language),
        }
    })
    .await;
    let edge = node(&app, "").await;
    for language in ["en", "de"] {
        let first = edge.get("/a", &[("x-language", language)]).await;
        assert_eq!(first.text(), language);
    }
    assert_eq!(app.seen()[1].field("if-none-match").as_deref(), Some("\"en\""));
    let third = edge.get("/a", &[("x-language", "at")]).await;
    assert_eq!(
        (third.status, third.text(), third.field("x-news")),
        (200, "de", Some("1"))
    );
    assert!(
        status(&third).contains("fwd=vary-miss; fwd-status=304"),
        "{}",
        status(&third)
    );
    let tags = app.seen().last().unwrap().field("if-none-match").unwrap();
    assert!(tags.contains("\"en\"") && tags.contains("\"de\""), "{tags}");
    let again = edge.get("/a", &[("x-language", "at")]).await;
    assert!(is_hit(&again) && again.text() == "de", "{}", status(&again));
    let unnamed = edge.get("/a", &[("x-language", "ch")]).await;
    assert_eq!(unnamed.text(), "ch", "it was fetched anew");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_304_about_another_tag_updates_no_field() {
    let app = saying(|seen| match seen.field("if-none-match") {
        None => ok("cache-control: max-age=2\r\netag: \"a\"\r\nx: 1\r\n", "body"),
        Some(_) => answer(NOT_MODIFIED, "etag: \"b\"\r\nx: 2\r\n", ""),
    })
    .await;
    let edge = node(&app, "").await;
    edge.get("/a", &[]).await;
    edge.clock.advance(Duration::from_secs(3));
    let second = edge.get("/a", &[]).await;
    let fields = (second.field("etag"), second.field("x"));
    assert_eq!((second.text(), fields), ("body", (Some("\"a\""), Some("1"))));
    assert!(is_hit(&edge.get("/a", &[]).await), "it was confirmed");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_request_goes_on_as_such_and_freshens_what_is_stored() {
    let app = saying(|seen| {
        let tag = if seen.number < 2 { "a" } else { "b" };
        let age = if seen.line().starts_with("HEAD") { 50 } else { 2 };
        let fields = format!(
            "etag: \"{tag}\"\r\ncache-control: max-age={age}\r\nx: {}\r\n",
            seen.number
        );
        match seen.line().starts_with("HEAD") {
            true => format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n{fields}\r\n").into_bytes(),
            false => ok(&fields, "body"),
        }
    })
    .await;
    let edge = node(&app, "").await;
    edge.get("/a", &[]).await;
    edge.clock.advance(Duration::from_secs(3));
    let head = edge.ask("HEAD", "/a", &[]).await;
    assert_eq!((head.status, head.field("content-length")), (200, Some("4")));
    assert_eq!(app.seen()[1].line(), "HEAD /a HTTP/1.1");
    let get = edge.get("/a", &[]).await;
    assert!(is_hit(&get), "{}", status(&get));
    assert_eq!((get.text(), get.field("x")), ("body", Some("1")));
    edge.clock.advance(Duration::from_secs(51));
    edge.ask("HEAD", "/a", &[]).await;
    let get = edge.get("/a", &[]).await;
    assert!(!is_hit(&get), "another tag makes it stale: {}", status(&get));
    assert_eq!(app.seen().len(), 4);
    edge.stop().await;
}

/// The part of `0123456789` that a request asks for.
fn part(seen: &Seen, tag: &str) -> Vec<u8> {
    const WHOLE: &str = "0123456789";
    let fields = format!("cache-control: max-age=60\r\netag: {tag}\r\n");
    let Some(range) = seen.field("range") else {
        return ok(&fields, WHOLE);
    };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last) = match first {
        "" => (10 - last.parse::<usize>().unwrap(), 9),
        first => (first.parse().unwrap(), last.parse().unwrap_or(9)),
    };
    let fields = format!("{fields}content-range: bytes {first}-{last}/10\r\n");
    answer("206 Partial Content", &fields, &WHOLE[first..=last])
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_stored_served_joined_and_completed() {
    let app = saying(|seen| part(seen, "\"a\"")).await;
    let edge = node(&app, "").await;
    let get = async |range: &str| edge.get("/a", &[("range", range)]).await;
    let first = get("bytes=0-3").await;
    assert_eq!((first.status, first.text()), (206, "0123"));
    assert_eq!(first.field("content-range"), Some("bytes 0-3/10"));
    for (range, expected) in [("bytes=0-3", "0123"), ("bytes=1-2", "12")] {
        let answer = get(range).await;
        assert!(is_hit(&answer), "{range}: {}", status(&answer));
        assert_eq!((answer.status, answer.text()), (206, expected));
    }
    let second = get("bytes=4-5").await;
    assert!(status(&second).contains("fwd=partial"), "{}", status(&second));
    let across = get("bytes=2-4").await;
    assert!(is_hit(&across) && across.text() == "234", "{}", status(&across));
    assert_eq!(across.field("content-range"), Some("bytes 2-4/10"));
    // Only what is missing is asked for.
    let whole = edge.get("/a", &[]).await;
    assert_eq!(
        (whole.status, whole.text(), whole.field("content-range")),
        (200, "0123456789", None)
    );
    let ranges: Vec<_> = app.seen().iter().filter_map(|seen| seen.field("range")).collect();
    assert_eq!(ranges, ["bytes=0-3", "bytes=4-5", "bytes=6-"]);
    let again = edge.get("/a", &[]).await;
    assert!(is_hit(&again) && again.text() == "0123456789");
    assert_eq!(get("bytes=-2").await.text(), "89");
    assert_eq!(app.seen().len(), 3);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_different_versions_are_never_put_together() {
    for tags in [["\"a\"", "\"b\""], ["W/\"a\"", "W/\"a\""]] {
        let app = saying(move |seen| part(seen, tags[usize::from(seen.number > 0)])).await;
        let edge = node(&app, "").await;
        edge.get("/a", &[("range", "bytes=0-3")]).await;
        let whole = edge.get("/a", &[]).await;
        assert_eq!((whole.status, whole.text()), (200, "0123456789"), "{tags:?}");
        assert_eq!(
            app.seen().last().unwrap().field("range"),
            None,
            "the whole was asked for"
        );
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_lies_about_its_place_is_passed_on_and_never_stored() {
    let lie = "cache-control: max-age=60\r\ncontent-range: bytes 4-9/10\r\n";
    let app = Application::saying(answer("206 Partial Content", lie, "01234")).await;
    let edge = node(&app, "").await;
    for asked in 1..=2 {
        let answer = edge.get("/a", &[("range", "bytes=-5")]).await;
        assert_eq!((answer.status, answer.text()), (206, "01234"));
        assert!(status(&answer).contains("detail=partial"), "{}", status(&answer));
        assert_eq!(app.seen().len(), asked);
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_application_is_answered_stale_while_the_origin_allows_it() {
    let app = saying(|seen| match seen.number {
        0 => ok("cache-control: max-age=2, stale-if-error=10\r\n", "good"),
        _ => answer("503 Service Unavailable", "", "bad"),
    })
    .await;
    let edge = node(&app, "").await;
    edge.get("/a", &[]).await;
    edge.clock.advance(Duration::from_secs(5));
    let stale = edge.get("/a", &[]).await;
    assert_eq!((stale.status, stale.text()), (200, "good"));
    edge.clock.advance(Duration::from_secs(10));
    let late = edge.get("/a", &[]).await;
    assert!(late.status >= 500, "{}", late.status);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_forbids_stale_holds_while_the_origin_gives_no_answer() {
    let check = async |site: &str, control: &'static str, expected: u16| {
        let app = Application::start(move |seen| match seen.number {
            0 => vec![Act::Send(ok(&format!("cache-control: {control}\r\n"), "good"))],
            _ => vec![Act::Close],
        })
        .await;
        let edge = node(&app, site).await;
        edge.get("/a", &[]).await;
        edge.clock.advance(Duration::from_secs(3));
        assert_eq!(edge.get("/a", &[]).await.status, expected, "{site} {control}");
        edge.stop().await;
    };
    let allowing = "stale_if_error = \"1h\"";
    // Nobody answers: RFC 9111 section 4.2.4 allows it where nothing forbids it.
    check("", "max-age=2", 200).await;
    check(allowing, "max-age=2", 200).await;
    check("", "max-age=2, stale-if-error=60", 200).await;
    for forbidding in [
        "max-age=2, must-revalidate",
        "max-age=2, proxy-revalidate",
        "no-cache",
        "s-maxage=2",
    ] {
        check("", forbidding, 502).await;
        check(allowing, forbidding, 502).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_invalidated_by_an_unsafe_answer_of_its_own_site() {
    let app = saying(|seen| {
        let group = if seen.line().contains("/in") {
            "cache-groups: \"g\"\r\n"
        } else {
            ""
        };
        ok(&format!("cache-control: max-age=600\r\n{group}"), "x")
    })
    .await;
    let edge = node(&app, "").await;
    let fill = async || {
        for path in ["/in/1", "/in/2", "/out", "/other"] {
            edge.get(path, &[]).await;
        }
    };
    let kept = async |path: &str| is_hit(&edge.get(path, &[]).await);
    let routes = edge.exchange().routes();
    let site = routes.router.route(HOST).unwrap();
    let invalidate = async |status: u16, name: &'static str, value: &str| {
        let fields = HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())]);
        let status = StatusCode::from_u16(status).unwrap();
        let key = edge.key("/posted");
        edge.exchange()
            .invalidate(site, &key, (&Method::POST, HOST), (status, &fields))
            .await;
    };
    fill().await;
    invalidate(500, "cache-group-invalidation", "\"g\"").await;
    invalidate(200, "cache-group-invalidation", "\"other\"").await;
    assert!(kept("/in/1").await && kept("/out").await);
    invalidate(200, "cache-group-invalidation", "\"g\"").await;
    assert!(!kept("/in/1").await && !kept("/in/2").await && kept("/out").await);
    invalidate(201, "location", "/other").await;
    assert!(!kept("/other").await && kept("/out").await);
    invalidate(201, "location", "https://elsewhere.test/out").await;
    assert!(kept("/out").await);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_a_directive_names_are_for_the_first_client_alone() {
    for control in [
        "max-age=60, no-cache=\"x-a, x-b\"",
        "max-age=60, private=\"x-a, x-b\"",
    ] {
        let fields = format!("cache-control: {control}\r\nx-a: 1\r\nx-b: 2\r\nx-c: 3\r\n");
        let app = Application::saying(ok(&fields, "x")).await;
        let edge = node(&app, "").await;
        let shown = |answer: &Answer| ["x-a", "x-b", "x-c"].map(|name| answer.field(name).is_some());
        assert_eq!(shown(&edge.get("/a", &[]).await), [true, true, true], "{control}");
        let second = edge.get("/a", &[]).await;
        assert!(is_hit(&second));
        assert_eq!(shown(&second), [false, false, true], "{control}");
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_variants_of_one_url_stay_a_few() {
    let app = saying(|seen| {
        let value = seen.field("x-v").unwrap_or_default();
        ok("cache-control: max-age=600\r\nvary: X-V\r\n", &value)
    })
    .await;
    let edge = node(&app, "").await;
    for n in 0..1000 {
        let value = n.to_string();
        assert_eq!(edge.get("/a", &[("x-v", &value)]).await.text(), value);
    }
    let entry = edge.exchange().cache().memory.find(&edge.key("/a")).unwrap();
    assert_eq!(entry.variants().len(), 8);
    let newest = edge.get("/a", &[("x-v", "999")]).await;
    assert!(is_hit(&newest) && newest.text() == "999");
    let oldest = edge.get("/a", &[("x-v", "0")]).await;
    assert!(!is_hit(&oldest) && oldest.text() == "0");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_go_on_with_the_bytes_that_they_are_about() {
    let body = "console.log(1);".repeat(100);
    let fields = "cache-control: max-age=600\r\ncontent-type: text/javascript\r\netag: \"a\"\r\n\
        content-digest: sha-256=:c:\r\nrepr-digest: sha-256=:r:\r\nunencoded-digest: sha-256=:u:\r\n";
    let app = Application::saying(ok(fields, &body)).await;
    let edge = node(&app, "").await;
    let shown = |answer: &Answer| {
        ["content-digest", "repr-digest", "unencoded-digest"].map(|name| answer.field(name).is_some())
    };
    assert_eq!(shown(&edge.get("/a.js", &[]).await), [true, true, true]);
    let part = edge.get("/a.js", &[("range", "bytes=0-1")]).await;
    assert_eq!((part.status, shown(&part)), (206, [false, true, true]));
    let coded = edge.get("/a.js", &[("accept-encoding", "br")]).await;
    assert_eq!(
        (coded.field("content-encoding"), shown(&coded)),
        (Some("br"), [false, false, true])
    );
    let same = edge.get("/a.js", &[("if-none-match", "\"a\"")]).await;
    assert_eq!((same.status, shown(&same)), (304, [false, true, true]));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_changes_the_key_the_fields_and_the_coding() {
    let body = "console.log(1);".repeat(100);
    let fields = "cache-control: max-age=600\r\ncontent-type: text/javascript\r\nx-secret: 1\r\n";
    let app = Application::saying(ok(fields, &body)).await;
    let rule =
        "[[site.rule]]\npath = \"/plain/*\"\nquery = [\"v\"]\nremove = [\"X-Secret\"]\ncoding = false\n";
    let edge = TestEdge::start_http(&app.url(), "", rule).await;
    let br = &[("accept-encoding", "br")];
    let plain = edge.get("/plain/a.js?v=1&utm=2", br).await;
    assert_eq!(
        (plain.field("x-secret"), plain.field("content-encoding")),
        (None, None)
    );
    assert_eq!(app.seen()[0].line(), "GET /plain/a.js?v=1 HTTP/1.1");
    assert!(is_hit(&edge.get("/plain/a.js?utm=3&v=1", br).await));
    assert!(!is_hit(&edge.get("/plain/a.js?v=2", br).await));
    let other = edge.get("/a.js?v=1", br).await;
    assert_eq!(
        (other.field("x-secret"), other.field("content-encoding")),
        (Some("1"), Some("br"))
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_warmed_is_a_hit_and_can_be_looked_at() {
    let fields = "cache-control: max-age=60, stale-if-error=5\r\netag: \"a\"\r\nage: 10\r\nvary: X-V\r\n";
    let app = Application::saying(ok(fields, "hello")).await;
    let edge = node(&app, "cache_status_key = true").await;
    let url = format!("https://{HOST}/a?b=1");
    let codings = "br, gzip".parse().unwrap();
    let warmed = edge.exchange().warm(&url, &codings).await.unwrap();
    assert_eq!(
        (warmed.status.as_u16(), warmed.bytes, warmed.whole),
        (200, 5, true)
    );
    assert!(
        warmed
            .cache_status
            .contains("fwd=uri-miss; fwd-status=200; ttl=50; stored")
    );
    let hit = edge.get("/a?b=1", &[]).await;
    assert!(
        is_hit(&hit) && status(&hit).contains("key=\"app|cdn.test|/a?b=1\""),
        "{}",
        status(&hit)
    );
    edge.clock.advance(Duration::from_secs(52));
    let shown = edge.exchange().inspect(&url).await.unwrap();
    assert_eq!(shown["key"], "app|cdn.test|/a?b=1");
    let stored = &shown["stored"][0];
    assert_eq!(
        stored["served"],
        "after validation, or if the origin fails: stale"
    );
    assert_eq!(
        (&stored["age_ms"], &stored["ttl"]),
        (&62_000.into(), &(-2).into())
    );
    assert_eq!(stored["lifetime"]["from"], "max-age");
    assert_eq!(stored["vary"]["x-v"], serde_json::Value::Null);
    assert_eq!(stored["forms"][0]["bytes"], 5);
    let nothing = edge
        .exchange()
        .inspect(&format!("https://{HOST}/none"))
        .await
        .unwrap();
    assert_eq!(nothing["stored"], serde_json::json!([]));
    assert!(edge.exchange().inspect("https://nobody.test/").await.is_err());
    assert!(
        edge.exchange()
            .warm("https://nobody.test/", &codings)
            .await
            .is_err()
    );
    edge.stop().await;
}

/// Tier, verdict and purge of each response that is shown.
fn shown(seen: &serde_json::Value) -> Vec<(String, String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let stored = seen["stored"].as_array().unwrap().iter();
    stored
        .map(|one| (text(&one["tier"]), text(&one["served"]), text(&one["purged"])))
        .collect()
}

fn line(tier: &str, served: &str, purged: &str) -> (String, String, String) {
    (tier.to_owned(), served.to_owned(), purged.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tier_is_looked_at_and_says_why_it_is_or_is_not_served() {
    let folder = tempfile::TempDir::new().unwrap();
    let app = saying(|seen| match seen.line().contains("/none") {
        true => ok("cache-control: no-store\r\n", "hello"),
        false => ok(
            "cache-control: max-age=60, stale-while-revalidate=30\r\netag: \"a\"\r\n",
            "hello",
        ),
    })
    .await;
    let disk = format!(
        "[cache]\ndisk = {{ path = \"{}\", size = \"64MiB\" }}\n",
        folder.path().display()
    );
    let edge = TestEdge::start_http(&app.url(), "", &disk).await;
    let url = format!("https://{HOST}/a");
    let look = async || edge.exchange().inspect(&url).await.unwrap();
    let nothing = look().await;
    assert_eq!(
        (shown(&nothing), &nothing["plain_get"]),
        (vec![], &"the origin is asked: uri-miss".into())
    );
    // Asked for twice, it is given to the disk as well.
    edge.get("/a", &[]).await;
    edge.get("/a", &[]).await;
    edge.exchange().cache().disk.as_ref().unwrap().flush().await;
    let (fresh, here, there) = ("yes: fresh", "memory", "disk");
    let both = look().await;
    assert_eq!(shown(&both), [line(here, fresh, "no"), line(there, fresh, "no")]);
    assert_eq!(
        (&both["plain_get"], &both["on_disk"]),
        (&"a hit".into(), &true.into())
    );
    edge.exchange().cache().memory.remove(&edge.key("/a"));
    let disk_only = look().await;
    assert_eq!(shown(&disk_only), [line(there, fresh, "no")]);
    assert_eq!(disk_only["plain_get"], "looked for on the disk first");
    assert!(
        status(&edge.get("/a", &[]).await).ends_with("detail=disk"),
        "and that is what happens"
    );
    edge.clock.advance(Duration::from_secs(70));
    let stale = look().await;
    assert_eq!(
        stale["plain_get"],
        "a hit, stale, and the origin is asked behind it"
    );
    assert_eq!(stale["stored"][1]["served"], "yes: stale while it is revalidated");
    edge.clock.advance(Duration::from_secs(100));
    assert_eq!(look().await["plain_get"], "the origin is asked: stale");
    edge.purge(edge::cache::epoch::Purge {
        everything: true,
        ..Default::default()
    });
    let purged = look().await;
    assert_eq!(purged["plain_get"], "the origin is asked: uri-miss");
    for (_, served, purged) in shown(&purged) {
        assert_eq!((&*served, &*purged), ("never: purged", "hard"));
    }
    // What is never stored leaves nothing to look at.
    edge.get("/none", &[]).await;
    let none = edge
        .exchange()
        .inspect(&format!("https://{HOST}/none"))
        .await
        .unwrap();
    assert_eq!(none["stored"], serde_json::json!([]));
    edge.stop().await;
}
