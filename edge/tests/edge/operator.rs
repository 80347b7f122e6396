//! What an operator does to a running node: purge, look at it, reload it.

use std::net::SocketAddr;

use edge::config::{AdminListen, Config, Scope, Token};
use edge::server::Node;

use crate::client::{Answer, TestClient};
use crate::support::{TestBucket, TestEdge, request};

const TOKEN: &str = "let me in";

fn with_operator(config: &mut Config) {
    config.admin.listen = Some(AdminListen::Tcp("127.0.0.1:0".parse().unwrap()));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, TOKEN.as_bytes());
    config.admin.tokens = vec![Token {
        name: "test".into(),
        sha256: digest.as_ref().try_into().unwrap(),
        scopes: vec![Scope::Purge, Scope::Read],
    }];
}

/// Asks the admin listener.
async fn operator(node: &Node, head: &str, body: &str) -> Answer {
    let address: SocketAddr = node
        .admin_url()
        .unwrap()
        .trim_start_matches("http://")
        .parse()
        .unwrap();
    let mut client = TestClient::plain(address).await;
    let request = format!(
        "{head} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.send(request).await;
    client.answer().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_through_the_api_is_seen_by_the_next_request() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "old", "max-age=60").await;
    let edge = TestEdge::start_with(&bucket, "index = \"a.js\"", "", with_operator).await;
    for file in ["https://cdn.test/a.js", "cdn.test/"] {
        assert_eq!(edge.get("/a.js", &[]).await.status, 200);
        assert!(
            edge.get("/a.js", &[])
                .await
                .field("cache-status")
                .unwrap()
                .contains("; hit")
        );
        let answer = operator(
            &edge.node,
            "POST /v1/purge",
            &format!("{{\"files\":[\"{file}\"]}}"),
        )
        .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        bucket.put("a.js", "new", "max-age=60").await;
        let after = edge.get("/a.js", &[]).await;
        assert!(
            after.field("cache-status").unwrap().contains("fwd="),
            "{file}: {:?}",
            after.head
        );
        assert_eq!(after.text(), "new");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_shows_every_part_and_the_metrics_are_well_formed() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x", "max-age=60").await;
    let edge = TestEdge::start_with(&bucket, "", "", with_operator).await;
    edge.get("/a.js", &[]).await;
    let status = operator(&edge.node, "GET /v1/status", "").await;
    let status: serde_json::Value = serde_json::from_slice(&status.body).unwrap();
    assert_eq!(status["cache"]["entries"], 1);
    assert_eq!(status["origins"]["assets"]["buckets"][0]["breaker"], "closed");
    assert_eq!(status["sites"][0]["name"], "cdn.test");
    assert_eq!(status["listeners"][0]["kind"], "plain");
    assert_eq!(operator(&edge.node, "GET /readyz", "").await.status, 200);
    assert_eq!(edge.node.registry().problems(), Vec::<String>::new());
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn purge_is_no_method_of_the_public_port_unless_the_site_and_a_token_say_so() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x", "max-age=60").await;
    let closed = TestEdge::start_with(&bucket, "", "", with_operator).await;
    let token = format!("Bearer {TOKEN}");
    let fields = [("authorization", token.as_str())];
    let answer = closed.ask("PURGE", "/a.js", &fields).await;
    assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD")));
    closed.stop().await;

    let change = |config: &mut Config| {
        with_operator(config);
        config.sites.iter_mut().for_each(|site| site.purge_method = true);
    };
    let open = TestEdge::start_with(&bucket, "", "", change).await;
    open.get("/a.js", &[]).await;
    assert_eq!(open.ask("PURGE", "/a.js", &[]).await.status, 401);
    assert!(
        open.get("/a.js", &[])
            .await
            .field("cache-status")
            .unwrap()
            .contains("; hit")
    );
    assert_eq!(open.ask("PURGE", "/a.js", &fields).await.status, 200);
    assert!(
        open.get("/a.js", &[])
            .await
            .field("cache-status")
            .unwrap()
            .contains("fwd=uri-miss")
    );
    open.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_cache_and_connections_and_a_bad_file_changes_nothing() {
    let bucket = TestBucket::start().await;
    bucket.put("a.js", "x", "max-age=60").await;
    let mut edge = TestEdge::start_from_file(&bucket, "").await;
    let mut client = edge.client().await;
    client.send(request("GET", "/a.js", &[])).await;
    assert_eq!(client.answer().await.field("x-cache"), None);

    edge.rewrite(&bucket, "x_cache = true");
    edge.node.reload();
    client.send(request("GET", "/a.js", &[])).await;
    assert_eq!(
        client.answer().await.field("x-cache"),
        Some("hit"),
        "the same connection, the same cache"
    );

    edge.rewrite(&bucket, "x_cache = \"perhaps\"");
    edge.node.reload();
    client.send(request("GET", "/a.js", &[])).await;
    assert_eq!(
        client.answer().await.field("x-cache"),
        Some("hit"),
        "the old configuration stays"
    );
    assert_eq!(bucket.asked("a.js").len(), 1);
    drop(client);
    edge.stop().await;
}
