//! Content codings: which form a client gets, its validators, and what a better form changes.

use bytes::Bytes;
use edge::representation::coding::Coding;
use edge::representation::encoder::{Decoder, Encoder, Quality};
use origin_sync::bucket::{Barrier, Fault, Meta, Rule};

use crate::client::Answer;
use crate::support::{TestBucket, TestEdge, all};

/// Bytes that no coding makes much smaller, the same each time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A script that gains from coding, with some noise so that no quality makes it trivial.
fn script(length: usize) -> Vec<u8> {
    let words = noise(length);
    let lines = words.iter().map(|byte| {
        format!(
            "var widget_{byte} = document.getElementById(\"login-{}\");\n",
            byte % 7
        )
    });
    let mut text: Vec<u8> = lines.flat_map(String::into_bytes).take(length).collect();
    text.truncate(length);
    text
}

pub(crate) fn encode(coding: Coding, content: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(coding, Quality::Fast).unwrap();
    let mut coded = encoder.write(content).unwrap().to_vec();
    coded.extend(encoder.finish().unwrap());
    coded
}

fn decoded(answer: &Answer) -> Vec<u8> {
    let coding = match answer.field("content-encoding") {
        None => return answer.body.clone(),
        Some(token) => Coding::from_token(token).unwrap(),
    };
    let mut decoder = Decoder::new(coding).unwrap();
    let (mut input, mut content) = (Bytes::from(answer.body.clone()), Vec::new());
    loop {
        let piece = decoder.decode(&mut input).unwrap();
        if piece.is_empty() && input.is_empty() {
            break;
        }
        content.extend_from_slice(&piece);
    }
    decoder.finish().unwrap();
    content
}

fn gzipped() -> Meta {
    Meta {
        content_encoding: Some("gzip".into()),
        cache_control: Some("max-age=60".into()),
        ..Meta::default()
    }
}

/// What clients send, and the codings that may come of it.
const MATRIX: &[(&str, &[&str])] = &[
    ("", &["identity"]),
    ("identity", &["identity"]),
    ("gzip", &["gzip"]),
    ("x-gzip", &["gzip"]),
    ("GZIP;Q=1.0", &["gzip"]),
    ("br", &["br"]),
    ("zstd", &["zstd"]),
    ("deflate", &["identity"]),
    ("gzip, deflate, br", &["br", "gzip"]),
    ("gzip, deflate, br, zstd", &["br", "gzip", "zstd"]),
    ("br;q=0, gzip", &["gzip"]),
    ("br;q=0.1, gzip;q=0.2", &["br", "gzip"]),
    ("*", &["br", "gzip", "zstd", "identity"]),
    ("*;q=0, gzip", &["gzip"]),
    ("identity;q=0, gzip", &["gzip"]),
    ("gzip;q=0", &["identity"]),
    ("gzip;q=2", &["identity"]),
    ("gzip;;q=1", &["identity"]),
    (", ,gzip,,", &["gzip"]),
    ("gzip;q=0.001", &["gzip", "identity"]),
    ("identity;q=1, gzip;q=0.5", &["identity"]),
    ("nonsense, br;q=1.000", &["br"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_accept_encoding_decodes_to_the_same_bytes() {
    let bucket = TestBucket::start().await;
    let (small, large) = (script(5_000), script(200_000));
    bucket.put("small.js", small.clone(), "max-age=60").await;
    bucket.put("large.js", large.clone(), "max-age=60").await;
    let edge = TestEdge::start(&bucket, "").await;
    for round in ["cold", "warm", "again"] {
        for (path, content) in [("/small.js", &small), ("/large.js", &large)] {
            for (accepted, expected) in MATRIX {
                if round == "cold" {
                    edge.exchange().cache().memory.remove(&edge.key(path));
                }
                let fields = [("accept-encoding", *accepted)];
                let fields = if accepted.is_empty() { &[][..] } else { &fields[..] };
                let answer = edge.get(path, fields).await;
                let coding = answer.field("content-encoding").unwrap_or("identity");
                assert_eq!(answer.status, 200, "{round} {path} {accepted}");
                assert!(expected.contains(&coding), "{round} {path} {accepted}: {coding}");
                assert!(decoded(&answer) == **content, "{round} {path} {accepted}");
                assert_eq!(
                    answer.field("vary"),
                    Some("Accept-Encoding"),
                    "{round} {path} {accepted}"
                );
                let etag = answer.field("etag").unwrap();
                assert!(etag.starts_with('"'), "strong: {etag}");
            }
        }
    }
    assert_eq!(
        bucket.asked("large.js").len(),
        MATRIX.len(),
        "one fill each time it was cold, none for a coding"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_coding_has_its_own_strong_tag_the_same_on_every_node() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", script(20_000), "max-age=60").await;
    let still = "[cache]\nrecode_budget = 0";
    let one = TestEdge::start_with(&bucket, "", still, |_| {}).await;
    let two = TestEdge::start_with(&bucket, "", still, |_| {}).await;
    let mut tags = Vec::new();
    for coding in ["identity", "gzip", "br", "zstd"] {
        let mut pair = Vec::new();
        for edge in [&one, &two] {
            for _ in 0..2 {
                let answer = edge.get("/a.js", &[("accept-encoding", coding)]).await;
                pair.push((answer.field("etag").unwrap().to_owned(), answer.body));
            }
        }
        pair.dedup();
        assert_eq!(pair.len(), 1, "{coding}");
        tags.push(pair.pop().unwrap().0);
    }
    let base = tags[0].trim_matches('"').to_owned();
    assert_eq!(
        tags[1..],
        ["gzip6", "br5b", "zstd3"].map(|suffix| format!("\"{base}-{suffix}\""))
    );
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_form_a_client_holds_it_is_told_that_nothing_changed() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", script(20_000), "max-age=60").await;
    let edge = TestEdge::start(&bucket, "").await;
    let base = edge
        .get("/a.js", &[])
        .await
        .field("etag")
        .unwrap()
        .trim_matches('"')
        .to_owned();
    for accepted in ["gzip", "br", "identity", "gzip, deflate, br, zstd"] {
        for suffix in ["", "-br5b", "-br11", "-gzip6", "-gzip9", "-zstd3", "-zstd19"] {
            for etag in [
                format!("\"{base}{suffix}\""),
                format!("W/\"{base}{suffix}\""),
                format!("\"x\", \"{base}{suffix}\""),
            ] {
                let answer = edge
                    .get(
                        "/a.js",
                        &[("accept-encoding", accepted), ("if-none-match", &etag)],
                    )
                    .await;
                assert_eq!(answer.status, 304, "{accepted} {etag}");
                assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
                assert!(answer.field("cache-control").is_some() && answer.field("etag").is_some());
                for absent in ["content-encoding", "content-type", "content-length"] {
                    assert_eq!(answer.field(absent), None, "{etag}");
                }
            }
        }
        for other in ["\"other\"", "\"other-br5b\"", &format!("\"{base}-made-up\"")] {
            let answer = edge
                .get(
                    "/a.js",
                    &[("accept-encoding", accepted), ("if-none-match", other)],
                )
                .await;
            assert_eq!(answer.status, 200, "{accepted} {other}");
        }
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_better_form_replaces_the_fast_one_and_then_stays() {
    let bucket = TestBucket::start().await;
    let content = script(100_000);
    bucket.put("a.js", content.clone(), "max-age=3600").await;
    let edge = TestEdge::start_with(&bucket, "", "[cache]\nrecode_budget = 1.0", |_| {}).await;
    let br = [("accept-encoding", "br")];
    let fast = edge.get("/a.js", &br).await;
    assert!(fast.field("etag").unwrap().ends_with("-br5b\""), "{}", fast.head);
    let best = || {
        let entry = edge.exchange().cache().memory.find(&edge.key("/a.js"));
        entry.is_some_and(|entry| {
            entry.variants()[0]
                .form(Coding::Br)
                .is_some_and(|form| !form.improvable)
        })
    };
    let improved = async {
        while !best() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), improved)
        .await
        .unwrap();
    let better = edge.get("/a.js", &br).await;
    assert!(
        better.field("etag").unwrap().ends_with("-br11\""),
        "{}",
        better.head
    );
    assert!(better.body.len() < fast.body.len() && decoded(&better) == content);
    let again = edge.get("/a.js", &br).await;
    assert_eq!(
        (again.field("etag"), &again.body),
        (better.field("etag"), &better.body)
    );
    let held = edge
        .get(
            "/a.js",
            &[
                ("accept-encoding", "br"),
                ("if-none-match", fast.field("etag").unwrap()),
            ],
        )
        .await;
    assert_eq!(held.status, 304, "the fast form is still right");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_fits_one_packet_is_good_enough() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", script(2000), "max-age=3600").await;
    let edge = TestEdge::start_with(&bucket, "", "[cache]\nrecode_budget = 1.0", |_| {}).await;
    let fast = edge.get("/a.js", &[("accept-encoding", "br")]).await;
    assert!(fast.body.len() < 1200, "{}", fast.body.len());
    let entry = edge.exchange().cache().memory.find(&edge.key("/a.js")).unwrap();
    let form = entry.variants()[0].form(Coding::Br).unwrap();
    assert!(!form.improvable && form.suffix == "br5b", "{form:?}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_get_of_a_coded_form_agree() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", script(20_000), "max-age=60").await;
    let edge = TestEdge::start_with(&bucket, "", "[cache]\nrecode_budget = 0", |_| {}).await;
    for coding in ["br", "gzip", "zstd"] {
        let fields = [("accept-encoding", coding)];
        let cold = edge.ask("HEAD", "/a.js", &fields).await;
        let got = edge.get("/a.js", &fields).await;
        let warm = edge.ask("HEAD", "/a.js", &fields).await;
        for name in [
            "etag",
            "content-encoding",
            "content-type",
            "vary",
            "cache-control",
        ] {
            assert_eq!(cold.field(name), got.field(name), "{coding} {name}");
            assert_eq!(warm.field(name), got.field(name), "{coding} {name}");
        }
        assert_eq!(warm.field("content-length"), Some(&*got.body.len().to_string()));
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_a_coded_form_is_one_of_its_own_bytes() {
    let bucket = TestBucket::start().await;
    let content = script(20_000);
    bucket.put("a.js", content.clone(), "max-age=60").await;
    let edge = TestEdge::start_with(&bucket, "", "[cache]\nrecode_budget = 0", |_| {}).await;
    let gzip = ("accept-encoding", "gzip");
    let cold = edge.get("/a.js", &[gzip, ("range", "bytes=10-19")]).await;
    assert_eq!(
        (cold.status, cold.field("content-encoding")),
        (206, None),
        "no form is made for a range"
    );
    assert_eq!(cold.body, &content[10..20]);
    let whole = edge.get("/a.js", &[gzip]).await;
    let etag = whole.field("etag").unwrap();
    let part = edge
        .get("/a.js", &[gzip, ("range", "bytes=10-19"), ("if-range", etag)])
        .await;
    assert_eq!((part.status, part.field("content-encoding")), (206, Some("gzip")));
    assert_eq!(
        (part.field("etag"), &part.body[..]),
        (Some(etag), &whole.body[10..20])
    );
    let identity = edge.get("/a.js", &[]).await.field("etag").unwrap().to_owned();
    let other = edge
        .get(
            "/a.js",
            &[gzip, ("range", "bytes=10-19"), ("if-range", &identity)],
        )
        .await;
    assert!(
        other.status == 200 && decoded(&other) == content,
        "the tag of another form gets the whole"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_refuses_everything_is_told_so() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", script(20_000), "max-age=60").await;
    bucket.put("small.js", "x", "max-age=60").await;
    let edge = TestEdge::start(&bucket, "").await;
    for path in ["/a.js", "/a.js"] {
        for refusing in ["*;q=0", "identity;q=0", "identity;q=0, deflate"] {
            let answer = edge.get(path, &[("accept-encoding", refusing)]).await;
            assert_eq!(
                (answer.status, answer.field("cache-control")),
                (406, Some("no-store")),
                "{path} {refusing}"
            );
        }
    }
    for fields in [
        &[("accept-encoding", "identity;q=0, br")][..],
        &[("accept-encoding", "identity;q=0, br"), ("range", "bytes=0-9")],
    ] {
        let coded = edge.get("/a.js", fields).await;
        assert_eq!(coded.field("content-encoding"), Some("br"), "{}", coded.head);
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_coded_is_passed_on_or_decoded_but_never_coded_twice() {
    let bucket = TestBucket::start().await;
    for length in [5_000, 300_000] {
        let content = script(length);
        let kept = encode(Coding::Gzip, &content);
        let key = format!("{length}.js");
        bucket.put_with(&key, kept.clone(), gzipped()).await;
        let edge = TestEdge::start(&bucket, "").await;
        let path = format!("/{key}");
        for round in 0..2 {
            for accepted in ["gzip", "br, gzip", "*"] {
                let answer = edge.get(&path, &[("accept-encoding", accepted)]).await;
                assert_eq!(
                    answer.field("content-encoding"),
                    Some("gzip"),
                    "{round} {accepted}"
                );
                assert!(answer.body == kept, "{round} {accepted}");
                assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
            }
            for fields in [
                &[][..],
                &[("accept-encoding", "br")],
                &[("accept-encoding", "identity")],
            ] {
                let answer = edge.get(&path, fields).await;
                assert_eq!(answer.field("content-encoding"), None, "{round} {fields:?}");
                assert!(answer.body == content, "{round} {fields:?}");
                assert!(
                    answer.field("etag").unwrap().ends_with("-identity\""),
                    "{}",
                    answer.head
                );
            }
        }
        let refused = edge.get(&path, &[("accept-encoding", "br, identity;q=0")]).await;
        assert_eq!(refused.status, 406);
        assert_eq!(bucket.asked(&key).len(), 1);
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decoded_form_answers_ranges_and_conditions_like_any_other() {
    let bucket = TestBucket::start().await;
    let content = script(5_000);
    bucket
        .put_with("a.js", encode(Coding::Gzip, &content), gzipped())
        .await;
    let edge = TestEdge::start(&bucket, "").await;
    let whole = edge.get("/a.js", &[]).await;
    let etag = whole.field("etag").unwrap();
    assert_eq!(edge.get("/a.js", &[("if-none-match", etag)]).await.status, 304);
    let part = edge
        .get("/a.js", &[("range", "bytes=10-19"), ("if-range", etag)])
        .await;
    assert_eq!((part.status, &part.body[..]), (206, &content[10..20]));
    let head = edge.ask("HEAD", "/a.js", &[]).await;
    assert_eq!(
        (head.field("content-length"), head.field("etag")),
        (Some("5000"), Some(etag))
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_of_its_coding_is_never_sent_to_who_refuses_that() {
    let bucket = TestBucket::start().await;
    bucket.put_with("a.js", script(5_000), gzipped()).await;
    let edge = TestEdge::start(&bucket, "").await;
    for _ in 0..2 {
        let mut client = edge.client().await;
        client.send(crate::support::request("GET", "/a.js", &[])).await;
        let answer = client.try_answer(false).await;
        assert!(answer.is_none_or(|answer| answer.status == 503 && answer.field("retry-after").is_some()));
    }
    assert_eq!(
        edge.get("/a.js", &[("accept-encoding", "gzip")]).await.body,
        script(5_000),
        "as the bucket says"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gzip_bomb_streams_within_the_budget() {
    let bucket = TestBucket::start().await;
    let zeros = vec![0; 10 << 20];
    let bomb = encode(Coding::Gzip, &zeros);
    assert!(bomb.len() < 100_000);
    bucket.put_with("bomb.js", bomb.clone(), gzipped()).await;
    let edge = TestEdge::start_with(&bucket, "", "[cache]\nmemory = \"32MiB\"", |_| {}).await;
    let budget = edge.exchange().cache().budget.clone();
    for _ in 0..3 {
        let answer = edge.get("/bomb.js", &[]).await;
        assert!(answer.body == zeros);
        assert!(budget.used() <= budget.capacity());
        assert!(edge.exchange().cache().memory.bytes() <= 16 << 20);
    }
    let answers = all((0..8).map(|_| edge.get("/bomb.js", &[])).collect()).await;
    assert!(answers.iter().all(|answer| answer.body == zeros));
    assert!(edge.get("/bomb.js", &[("accept-encoding", "gzip")]).await.body == bomb);
    edge.until("everything to be given back", || {
        edge.metric("edge_cache_in_flight_bytes") == 0
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_room_for_a_form_the_only_reader_gets_the_body_as_it_is() {
    const MIB: u64 = 1024 * 1024;
    let bucket = TestBucket::start().await;
    bucket.put("mine.js", script(200_000), "private").await;
    let edge = TestEdge::start_with(&bucket, "", "[cache]\nmemory = \"64MiB\"", |_| {}).await;
    // The last sixteenth is for small bodies: it has room for a coder, and none for a stream of what that makes.
    let others = edge.exchange().cache().budget.count(60 * MIB - 201_000);
    let answer = edge.get("/mine.js", &[("accept-encoding", "gzip")]).await;
    assert_eq!((answer.status, answer.field("content-encoding")), (200, None));
    assert!(answer.body == script(200_000));
    drop(others);
    let answer = edge.get("/mine.js", &[("accept-encoding", "gzip")]).await;
    assert_eq!(answer.field("content-encoding"), Some("gzip"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_gain_from_coding_is_left_as_it_is() {
    let bucket = TestBucket::start().await;
    bucket.put("tiny.js", script(1200), "max-age=60").await;
    bucket.put("edge.js", script(1201), "max-age=60").await;
    bucket.put("image.png", script(5_000), "max-age=60").await;
    bucket
        .put("fixed.js", script(5_000), "max-age=60, no-transform")
        .await;
    bucket.put("empty.js", "", "max-age=60").await;
    let edge = TestEdge::start(&bucket, "").await;
    let all_codings = [("accept-encoding", "gzip, deflate, br, zstd")];
    for _ in 0..2 {
        for path in ["/tiny.js", "/image.png", "/fixed.js", "/empty.js"] {
            let answer = edge.get(path, &all_codings).await;
            assert_eq!(
                (answer.status, answer.field("content-encoding")),
                (200, None),
                "{path}"
            );
            assert_eq!(
                answer.field("content-length"),
                Some(&*answer.body.len().to_string()),
                "{path}"
            );
        }
        let coded = edge.get("/edge.js", &all_codings).await;
        assert!(coded.field("vary") == Some("Accept-Encoding") && decoded(&coded) == script(1201));
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_misses_at_once_are_all_right() {
    let bucket = TestBucket::start().await;
    // Every tenth is so large that its form is followed while it is made.
    let content = |number: usize| script(if number.is_multiple_of(10) { 66_000 } else { 5_000 });
    for number in 0..200 {
        bucket
            .put(&format!("{number}.js"), content(number), "max-age=60")
            .await;
    }
    // Two hundred fetches at once wait for one another, and on a busy machine for others too: that is no failure of the
    // origin, and none is asked a second time for it.
    let tables = "[cache]\nrecode_budget = 0\n[origin.assets.timeouts]\nattempts = 1\nconnect = \"100s\"\n\
                  attempt = \"100s\"\noperation = \"100s\"\nread = \"100s\"";
    let edge = TestEdge::start_with(&bucket, "", tables, |_| {}).await;
    let paths: Vec<_> = (0..200).map(|number| format!("/{number}.js")).collect();
    let answers = all(paths
        .iter()
        .map(|path| edge.get(path, &[("accept-encoding", "br")]))
        .collect());
    let answers = tokio::time::timeout(std::time::Duration::from_secs(120), answers)
        .await
        .unwrap();
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer.status, 200, "{number}: {:?}", answer.field("cache-status"));
        assert!(decoded(answer) == content(number), "{number}");
    }
    for path in &paths {
        assert_eq!(bucket.asked(&path[1..]).len(), 1, "{path}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_who_want_one_form_at_once_share_its_making() {
    let bucket = TestBucket::start().await;
    let content = script(300_000);
    bucket.put("a.js", content.clone(), "max-age=60").await;
    let barrier = Barrier::new();
    bucket.fault(Rule::new(Fault::HoldBodyUntil(200_000, barrier.clone())).key("a.js"));
    let edge = TestEdge::start_with(&bucket, "", "[cache]\nrecode_budget = 0", |_| {}).await;
    let clients = all((0..50)
        .map(|_| edge.get("/a.js", &[("accept-encoding", "br")]))
        .collect());
    let release = async {
        barrier.arrived(1).await;
        barrier.release();
    };
    let (answers, ()) = tokio::join!(clients, release);
    assert!(answers.iter().all(|answer| decoded(answer) == content));
    edge.until("the form", || edge.metric("edge_forms_made_total") >= 1)
        .await;
    assert_eq!(edge.metric("edge_forms_made_total"), 1);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_made_while_its_response_is_confirmed_carries_the_new_fields() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", script(20_000), "max-age=60").await;
    let edge = TestEdge::start_with(
        &bucket,
        "stale_while_revalidate = \"0s\"",
        "[cache]\nrecode_budget = 0",
        |_| {},
    )
    .await;
    edge.get("/a.js", &[("accept-encoding", "br")]).await;
    bucket.put("a.js", script(20_000), "max-age=90").await;
    edge.advance(&bucket, std::time::Duration::from_secs(61));
    edge.get("/a.js", &[]).await;
    for coding in ["br", "gzip", "identity"] {
        let answer = edge.get("/a.js", &[("accept-encoding", coding)]).await;
        assert_eq!(answer.field("cache-control"), Some("max-age=90"), "{coding}");
        assert!(decoded(&answer) == script(20_000));
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_in_the_making_are_bounded_and_the_others_get_what_there_is() {
    const OBJECTS: usize = 270;
    let bucket = TestBucket::start().await;
    let (content, barrier) = (script(2_000), Barrier::new());
    for number in 0..OBJECTS {
        bucket
            .put(&format!("{number}.js"), content.clone(), "max-age=60")
            .await;
    }
    bucket.fault(Rule::new(Fault::HoldBodyUntil(1_000, barrier.clone())));
    let edge = TestEdge::start_with(
        &bucket,
        "",
        "[cache]\nrecode_budget = 0\n[origin.assets.timeouts]\nconnect = \"100s\"\nattempt = \"100s\"\noperation = \"100s\"\nread = \"100s\"",
        |_| {},
    )
    .await;
    let paths: Vec<_> = (0..OBJECTS).map(|number| format!("/{number}.js")).collect();
    let accepted = |number: usize| {
        if number.is_multiple_of(2) {
            "br"
        } else {
            "br, identity;q=0"
        }
    };
    let clients = paths.iter().enumerate().map(|(number, path)| {
        let fields = [("accept-encoding", accepted(number))];
        let edge = &edge;
        async move { edge.get(path, &fields).await }
    });
    let clients = all(clients.collect());
    let release = async {
        barrier.arrived(OBJECTS).await;
        edge.until("the bound", || edge.metric("edge_forms_skipped_total") == 14)
            .await;
        barrier.release();
    };
    let (answers, ()) = tokio::join!(clients, release);
    for (number, answer) in answers.iter().enumerate() {
        match (answer.status, answer.field("content-encoding")) {
            (200, Some("br")) => assert!(decoded(answer) == content),
            (200, None) => assert!(answer.body == content && accepted(number) == "br"),
            (503, _) => assert!(accepted(number) != "br" && answer.field("retry-after").is_some()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(edge.metric("edge_forms_made_total"), 256);
    edge.stop().await;
}
