//! Each answer and limit, with real sockets.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::cache::epoch::{Position, Standing};
use crate::cache::key::Key;
use crate::cache::tag::Tag;
use crate::config::{AdminListen, Token};

const PATIENCE: Duration = Duration::from_secs(20);

/// An admin listener of a node with one site, cdn.example.com, and three tokens: `ops`, `purger`, `reader`.
struct TestAdmin {
    admin: Admin,
    config: Config,
    address: std::net::SocketAddr,
    epochs: Arc<Epochs>,
    readiness: Readiness,
    clock: Clock,
    drain: Drain,
    registry: Registry,
}

impl TestAdmin {
    fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    fn start_with(change: impl Fn(&mut Config, &mut Limits)) -> Self {
        let mut config = crate::config::tests::minimal();
        let token = |name: &str, scope| Token {
            name: name.into(),
            sha256: digest(&SHA256, format!("secret-{name}").as_bytes())
                .as_ref()
                .try_into()
                .unwrap(),
            scopes: vec![scope],
        };
        config.admin.tokens = vec![
            token("reader", Scope::Read),
            token("purger", Scope::Purge),
            token("ops", Scope::Admin),
        ];
        let mut limits = Limits::default();
        change(&mut config, &mut limits);
        let (epochs, readiness) = (Arc::new(Epochs::default()), Readiness::default());
        let clock = Clock::manual(Timestamp::from_unix_seconds(1_700_000_000));
        let (drain, registry) = (Drain::default(), Registry::default());
        let handles = Handles {
            clock: clock.clone(),
            drain: drain.clone(),
            registry: registry.clone(),
            readiness: readiness.clone(),
            epochs: Arc::clone(&epochs),
            exchange: Arc::default(),
            status: Box::new(|| Map::from_iter([("cache".to_owned(), json!({ "bytes": 7 }))])),
        };
        let admin = Admin::with_limits(&config, Arc::new(Router::new(&config)), handles, limits);
        let listener = bind(&AdminListen::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let address = listener.tcp_addr().unwrap();
        admin.serve(listener).unwrap();
        Self {
            admin,
            config,
            address,
            epochs,
            readiness,
            clock,
            drain,
            registry,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends these bytes and reads until the listener closes.
    async fn raw(&self, bytes: &[u8]) -> Got {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        Got::read(&mut stream).await
    }

    /// A request with these additional lines of its head (each with its line end).
    async fn ask(&self, method: &str, path: &str, lines: &str, body: &str) -> Got {
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{length}{lines}\r\n"
        );
        self.raw(format!("{head}{body}").as_bytes()).await
    }

    async fn get(&self, path: &str) -> Got {
        self.ask("GET", path, "", "").await
    }

    async fn purge(&self, token: &str, body: &str) -> Got {
        let lines = format!("Authorization: Bearer secret-{token}\r\nContent-Type: application/json\r\n");
        self.ask("POST", "/v1/purge", &lines, body).await
    }
}

/// A response as it came.
#[derive(Debug)]
struct Got {
    status: u16,
    head: String,
    body: String,
}

impl Got {
    async fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        Self {
            status: head
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok())
                .unwrap_or(0),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Asserts that this is a problem of RFC 9457 with this status.
    #[track_caller]
    fn is_problem(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        assert!(
            self.head.contains("content-type: application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        self
    }

    #[track_caller]
    fn has(&self, line: &str) -> &Self {
        assert!(self.head.contains(line), "{line}: {self:?}");
        self
    }
}

#[tokio::test]
async fn health_needs_no_token_and_says_why() {
    let node = TestAdmin::start();
    assert_eq!(node.get("/livez").await.body, "alive\n");
    let got = node.get("/readyz").await;
    assert_eq!((got.status, got.body.as_str()), (503, "not ready: starting\n"));
    node.readiness.set(NotReady::Starting, false);
    let got = node.get("/readyz?probe=1").await;
    assert_eq!((got.status, got.body.as_str()), (200, "ready\n"));
    got.has("cache-control: no-store")
        .has("x-content-type-options: nosniff");
    node.readiness.set(NotReady::Draining, true);
    let got = node
        .ask("GET", "/readyz", "Accept: application/json\r\n", "")
        .await;
    assert_eq!(got.status, 503);
    assert_eq!(
        got.json(),
        json!({ "ready": false, "reasons": ["draining"], "degraded": [] })
    );
    // Alive all the while: a drain is no reason to be killed.
    assert_eq!(node.get("/livez").await.status, 200);
    let got = node.ask("HEAD", "/livez", "", "").await;
    assert_eq!((got.status, got.body.as_str()), (200, ""));
}

#[tokio::test]
async fn protected_health_asks_for_a_token_that_may_read() {
    let node = TestAdmin::start_with(|config, _| config.admin.protect_health = true);
    for path in ["/livez", "/readyz", "/metrics"] {
        node.get(path)
            .await
            .is_problem(401)
            .has("www-authenticate: bearer");
        let got = node
            .ask("GET", path, "Authorization: Bearer secret-purger\r\n", "")
            .await;
        got.is_problem(403);
        let got = node
            .ask("GET", path, "Authorization: Bearer secret-reader\r\n", "")
            .await;
        assert_ne!(got.status, 401);
    }
}

#[tokio::test]
async fn metrics_come_in_both_formats_and_their_series_are_bounded() {
    let node = TestAdmin::start();
    node.get("/metrics")
        .await
        .has("200 ok")
        .has("content-type: text/plain; version=0.0.4");
    let got = node
        .ask("GET", "/metrics", "Accept: application/openmetrics-text\r\n", "")
        .await;
    got.has("content-type: application/openmetrics-text; version=1.0.0");
    assert!(got.body.ends_with("# EOF\n"));
    let lines = node.registry.encode().lines().count();
    for n in 0..200 {
        node.get(&format!("/nothing-{n}")).await.is_problem(404);
    }
    assert_eq!(node.registry.encode().lines().count(), lines);
    assert_eq!(node.admin.0.metrics.requests.value(Answer::NotFound), 200);
    assert_eq!(node.registry.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_purge_moves_the_epochs_and_says_what_was_understood() {
    let node = TestAdmin::start();
    let key = Key::new("widgets", "cdn.example.com", "/a.js", None);
    let tag = [Tag::new("release-1").unwrap()];
    let got = node
        .purge(
            "purger",
            r#"{"files": ["https://CDN.example.com/%61.js", "other.example/b"]}"#,
        )
        .await;
    assert_eq!(got.status, 200);
    got.has("content-type: application/json");
    assert_eq!(
        got.json(),
        json!({
            "position": 1, "soft": false, "everything": false,
            "files": ["cdn.example.com/a.js", "other.example/b"], "tags": [], "prefixes": [], "hosts": [],
            "warnings": [{ "value": "other.example/b", "warning": "no site answers to this host" }],
        })
    );
    let first = Position::from_number(1);
    assert_eq!(
        node.epochs.judge(&key, &[], Position::default()),
        Standing::Purged
    );
    assert_eq!(
        node.epochs.judge(&key, &[], first),
        Standing::Valid { as_of: first }
    );
    let got = node
        .purge("ops", r#"{"tags": ["release-1"], "soft": true}"#)
        .await;
    assert_eq!(got.json()["position"], 2);
    assert_eq!(node.epochs.judge(&key, &tag, first), Standing::SoftlyPurged);
    // The same again does no harm.
    let again = node
        .purge("ops", r#"{"tags": ["release-1"], "soft": true}"#)
        .await;
    assert_eq!(
        (again.status, &again.json()["tags"]),
        (200, &json!(["release-1"]))
    );
    assert_eq!(node.admin.0.metrics.purges.value(purge::Kind::Tag), 2);
}

#[tokio::test]
async fn a_purge_that_is_not_understood_purges_nothing() {
    let node = TestAdmin::start();
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"url": "x"}"#,
        r#"{"files": ["/a"]}"#,
        "\u{0}",
    ] {
        node.purge("ops", body).await.is_problem(400);
    }
    let deep = "[".repeat(100_000);
    node.purge("ops", &deep).await.is_problem(400);
    assert_eq!(node.epochs.last(), Position::default());
}

#[tokio::test]
async fn tokens_are_looked_at() {
    let node = TestAdmin::start();
    let check = async |lines: &str, status: u16, challenge: &str| {
        let lines = format!("{lines}Content-Type: application/json\r\n");
        let got = node
            .ask("POST", "/v1/purge", &lines, r#"{"everything": true}"#)
            .await;
        got.is_problem(status);
        if status == 401 || !challenge.is_empty() {
            assert!(got.head.contains(challenge), "{lines}: {got:?}");
        }
    };
    check("", 401, "www-authenticate: bearer realm=\"admin\"").await;
    // Of the same length as a good one, and of others.
    check("Authorization: Bearer secret-purgex\r\n", 401, "invalid_token").await;
    check("Authorization: Bearer secret-purge\r\n", 401, "invalid_token").await;
    check("Authorization: Bearer secret-purgerr\r\n", 401, "invalid_token").await;
    check("Authorization: Bearer \r\n", 401, "invalid_token").await;
    check("Authorization: Basic c2VjcmV0LW9wcw==\r\n", 401, "invalid_token").await;
    let twice = "Authorization: Bearer secret-ops\r\nAuthorization: Bearer secret-ops\r\n";
    check(twice, 401, "invalid_token").await;
    check(
        "Authorization: Bearer secret-reader\r\n",
        403,
        "insufficient_scope",
    )
    .await;
    assert_eq!(node.epochs.last(), Position::default());
    node.get("/v1/status").await.is_problem(401);
    let got = node
        .ask("GET", "/v1/status", "Authorization: Bearer secret-purger\r\n", "")
        .await;
    got.is_problem(403);
}

#[tokio::test]
async fn an_edge_without_tokens_lets_nobody_purge() {
    let node = TestAdmin::start_with(|config, _| config.admin.tokens.clear());
    node.purge("ops", r#"{"everything": true}"#).await.is_problem(401);
    assert_eq!(node.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_reload_changes_tokens_and_sites() {
    let node = TestAdmin::start();
    assert_eq!(node.purge("ops", r#"{"everything": true}"#).await.status, 200);
    let mut config = node.config.clone();
    config.admin.tokens.retain(|token| token.name != "ops");
    config.sites[0].hosts = vec!["new.example".into()];
    node.admin.apply(&config, Arc::new(Router::new(&config)));
    node.purge("ops", r#"{"everything": true}"#).await.is_problem(401);
    let got = node
        .purge("purger", r#"{"hosts": ["new.example", "cdn.example.com"]}"#)
        .await;
    assert_eq!(got.json()["warnings"][0]["value"], "cdn.example.com");
    assert_eq!(got.json()["warnings"][1], Value::Null);
}

#[tokio::test]
async fn paths_are_compared_byte_for_byte() {
    let node = TestAdmin::start();
    for path in [
        "/",
        "//v1/purge",
        "/v1//purge",
        "/v1/purge/",
        "/v1/../livez",
        "/v1/./status",
        "/./livez",
        "/%6civez",
        "/v1%2fstatus",
        "/v1/status;x",
        "/LIVEZ",
        "/livez%00",
        "/livez%3f",
        "/.well-known/portico/ready",
    ] {
        node.get(path).await.is_problem(404);
        let lines = "Authorization: Bearer secret-ops\r\nContent-Type: application/json\r\n";
        node.ask("POST", path, lines, r#"{"everything": true}"#)
            .await
            .is_problem(404);
    }
    node.get("http://localhost/livez").await.is_problem(400);
    assert_eq!(node.epochs.last(), Position::default());
}

#[tokio::test]
async fn other_methods_are_told_what_is_allowed() {
    let node = TestAdmin::start();
    node.get("/v1/purge").await.is_problem(405).has("allow: post");
    node.ask("OPTIONS", "/v1/purge", "", "").await.is_problem(405);
    node.ask("POST", "/livez", "", "")
        .await
        .is_problem(405)
        .has("allow: get, head");
    node.ask("TRACE", "/metrics", "", "").await.is_problem(405);
    node.ask("PURGE", "/v1/status", "", "").await.is_problem(405);
}

#[tokio::test]
async fn a_web_page_gets_nothing() {
    let node = TestAdmin::start();
    let purge = r#"{"everything": true}"#;
    let auth = "Authorization: Bearer secret-ops\r\n";
    // What a form or a simple fetch can send, even with a stolen token.
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ] {
        let lines = format!("{auth}Content-Type: {kind}\r\n");
        node.ask("POST", "/v1/purge", &lines, purge).await.is_problem(415);
    }
    node.ask("POST", "/v1/purge", auth, purge).await.is_problem(415);
    let lines = format!("{auth}Content-Type: application/json\r\nOrigin: https://evil.example\r\n");
    node.ask("POST", "/v1/purge", &lines, purge).await.is_problem(403);
    let got = node.ask("OPTIONS", "/v1/purge", "Origin: null\r\n", "").await;
    got.is_problem(403);
    assert!(!got.head.contains("access-control"), "{got:?}");
    assert_eq!(node.epochs.last(), Position::default());
}

#[tokio::test]
async fn a_name_that_a_page_could_have_is_misdirected() {
    let node = TestAdmin::start_with(|config, _| config.admin.hosts = vec!["edge.internal".into()]);
    let check = async |lines: &str, status: u16| {
        let request = format!("GET /livez HTTP/1.1\r\n{lines}Connection: close\r\n\r\n");
        let got = node.raw(request.as_bytes()).await;
        assert_eq!(got.status, status, "{lines}");
    };
    check("Host: 127.0.0.1:9180\r\n", 200).await;
    check("Host: [::1]:9180\r\n", 200).await;
    check("Host: 10.1.2.3\r\n", 200).await;
    check("Host: LOCALHOST\r\n", 200).await;
    check("Host: Edge.internal:9180\r\n", 200).await;
    check("Host: rebound.evil.example\r\n", 421).await;
    check("Host: 127.0.0.1.evil.example\r\n", 421).await;
    check(
        "Host: rebound.evil.example\r\nAuthorization: Bearer guess\r\n",
        421,
    )
    .await;
    check(
        "Host: rebound.evil.example\r\nAuthorization: Bearer secret-reader\r\n",
        200,
    )
    .await;
    check("Host: a\r\nHost: b\r\n", 400).await;
    check("Host: \r\n", 400).await;
    check("", 400).await;
    let got = node.raw(b"GET /livez HTTP/1.0\r\n\r\n").await;
    assert_eq!(got.status, 200);
}

#[tokio::test]
async fn a_large_body_is_refused_before_it_is_sent() {
    let node = TestAdmin::start();
    let auth = "Host: localhost\r\nAuthorization: Bearer secret-ops\r\nContent-Type: application/json\r\n";
    // 100 MB are announced, and none of them sent.
    let head = format!("POST /v1/purge HTTP/1.1\r\n{auth}Content-Length: 100000000\r\n\r\n");
    node.raw(head.as_bytes())
        .await
        .is_problem(413)
        .has("connection: close");
    // Whoever asks before sending is not told to go on.
    let head =
        format!("POST /v1/purge HTTP/1.1\r\n{auth}Content-Length: 100000000\r\nExpect: 100-continue\r\n\r\n");
    node.raw(head.as_bytes()).await.is_problem(413);
    // Without a length, it is refused once it has come too far.
    let mut stream = node.connect().await;
    let head = format!("POST /v1/purge HTTP/1.1\r\n{auth}Transfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..20 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    Got::read(&mut stream).await.is_problem(413);
    // And exactly a mebibyte is read.
    let body = r#"{"everything": true}"#.to_owned() + &" ".repeat(1024 * 1024 - 20);
    assert_eq!(node.purge("ops", &body).await.status, 200);
    node.purge("ops", &format!(" {body}")).await.is_problem(413);
}

#[tokio::test]
async fn slow_clients_are_not_waited_for() {
    let node = TestAdmin::start_with(|_, limits| {
        limits.head = Duration::from_millis(500);
        limits.body = Duration::from_millis(200);
    });
    // Half a head, no head at all, and a connection that says no more after a request.
    for sent in [
        "GET /livez HTTP/1.1\r\nHost: loc",
        "",
        "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let got = node.raw(sent.as_bytes()).await;
        assert_eq!(
            got.status,
            if sent.ends_with("\r\n\r\n") { 200 } else { 0 },
            "{sent}: {got:?}"
        );
    }
    let auth = "Host: localhost\r\nAuthorization: Bearer secret-ops\r\nContent-Type: application/json\r\n";
    let half = format!("POST /v1/purge HTTP/1.1\r\n{auth}Content-Length: 20\r\n\r\n{{\"every");
    node.raw(half.as_bytes()).await.is_problem(408);
    assert_eq!(node.epochs.last(), Position::default());
}

#[tokio::test]
async fn a_head_has_its_limit() {
    let node = TestAdmin::start();
    let lines = format!("X: {}\r\n", "a".repeat(15_000));
    assert_eq!(node.ask("GET", "/livez", &lines, "").await.status, 200);
    let lines = format!("X: {}\r\n", "a".repeat(17_000));
    assert_eq!(node.ask("GET", "/livez", &lines, "").await.status, 431);
}

#[tokio::test]
async fn one_connection_too_many_is_turned_away_and_a_place_comes_free() {
    let node = TestAdmin::start_with(|_, limits| limits.connections = 2);
    let held = [node.connect().await, node.connect().await];
    until(|| node.admin.0.metrics.connections.value() == 2).await;
    node.raw(b"").await.is_problem(503).has("connection: close");
    assert_eq!(node.admin.0.metrics.turned_away.value(), 1);
    drop(held);
    until(|| node.admin.0.metrics.connections.value() == 0).await;
    assert_eq!(node.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_token_purges_so_often_and_no_more() {
    let node = TestAdmin::start_with(|config, _| config.admin.purges_per_second = 2);
    let purge = r#"{"tags": ["a"]}"#;
    assert_eq!(node.purge("ops", purge).await.status, 200);
    // What is refused costs as much.
    node.purge("ops", "{").await.is_problem(400);
    node.purge("ops", purge)
        .await
        .is_problem(429)
        .has("retry-after: 1");
    assert_eq!(node.purge("purger", purge).await.status, 200);
    node.clock.advance(Duration::from_millis(500));
    assert_eq!(node.purge("ops", purge).await.status, 200);
}

#[tokio::test]
async fn looking_and_warming_need_their_scopes_and_a_node_that_is_up() {
    let node = TestAdmin::start();
    let check = async |method: &str, path: &str, token: &str, body: &str, expected: u16| {
        let lines = format!("Authorization: Bearer secret-{token}\r\nContent-Type: application/json\r\n");
        let got = node.ask(method, path, &lines, body).await;
        assert_eq!(got.status, expected, "{method} {path} {token} {body}");
    };
    let urls = r#"{"urls": ["https://cdn.example.com/a"]}"#;
    check(
        "GET",
        "/v1/cache?url=https%3A%2F%2Fcdn.example.com%2F",
        "purger",
        "",
        403,
    )
    .await;
    check(
        "GET",
        "/v1/cache?url=https%3A%2F%2Fcdn.example.com%2F",
        "reader",
        "",
        503,
    )
    .await;
    check("GET", "/v1/cache", "reader", "", 400).await;
    check("POST", "/v1/warm", "reader", urls, 403).await;
    check("POST", "/v1/warm", "purger", urls, 503).await;
    check("GET", "/v1/warm", "purger", "", 405).await;
}

#[tokio::test]
async fn status_shows_the_node_and_what_its_parts_add() {
    let node = TestAdmin::start();
    node.clock.advance(Duration::from_secs(90));
    node.epochs.purge(&Default::default());
    let lines = "Authorization: Bearer secret-reader\r\n";
    let status = node.ask("GET", "/v1/status", lines, "").await.json();
    assert_eq!(
        status,
        json!({
            "name": "portico",
            "version": env!("CARGO_PKG_VERSION"),
            "started": "2023-11-14T22:13:20.000000Z",
            "uptime_seconds": 90,
            "ready": false,
            "not_ready": ["starting"],
            "degraded": [],
            "purges": { "position": 1, "records": node.epochs.records(), "folds": 0 },
            "sites": [{ "name": "cdn.example.com", "hosts": ["cdn.example.com"], "origin": "assets" }],
            "cache": { "bytes": 7 },
        })
    );
}

#[tokio::test]
async fn the_contract_names_the_routes_that_there_are() {
    let node = TestAdmin::start();
    let document = node.get("/openapi.json").await.json();
    let described: Vec<_> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, methods)| {
            let methods = methods.as_object().unwrap();
            assert_eq!(methods.len(), 1, "{path}");
            let (method, operation) = methods.iter().next().unwrap();
            (path.clone(), method.to_uppercase(), operation["security"].clone())
        })
        .collect();
    let mut routed: Vec<_> = routes::ROUTES
        .iter()
        .map(|route| {
            let security = match route.access {
                Access::Open => json!([{}]),
                Access::Health => json!([{}, { "token": ["read"] }]),
                Access::Scope(Scope::Purge) => json!([{ "token": ["purge"] }]),
                Access::Scope(Scope::Admin) => json!([{ "token": ["admin"] }]),
                Access::Scope(Scope::Read) => json!([{ "token": ["read"] }]),
            };
            (route.path.to_owned(), route.method.to_string(), security)
        })
        .collect();
    routed.sort_by(|a, b| a.0.cmp(&b.0));
    let mut described = described;
    described.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(described, routed);
    // The purge body's members are those that are read.
    let members = &document["components"]["schemas"]["purge"]["properties"];
    for member in ["files", "tags", "prefixes", "hosts", "everything", "soft"] {
        assert!(members[member].is_object(), "{member}");
    }
    assert_eq!(members.as_object().unwrap().len(), 6);
    let reasons = &document["components"]["schemas"]["readiness"]["properties"]["reasons"]["items"]["enum"];
    assert_eq!(*reasons, json!(NotReady::ALL.map(NotReady::token)));
}

#[tokio::test]
async fn a_drain_lets_the_request_under_way_end() {
    let node = TestAdmin::start();
    let mut stream = node.connect().await;
    let auth = "Host: localhost\r\nAuthorization: Bearer secret-ops\r\nContent-Type: application/json\r\n";
    let head = format!("POST /v1/purge HTTP/1.1\r\n{auth}Content-Length: 20\r\nExpect: 100-continue\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // The listener waits for the body: it said so.
    let mut line = [0; 25];
    stream.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    node.drain.begin();
    stream.write_all(br#"{"everything": true}"#).await.unwrap();
    assert_eq!(Got::read(&mut stream).await.status, 200);
    assert_eq!(node.drain.finish(PATIENCE).await, 0);
    assert!(TcpStream::connect(node.address).await.is_err());
}

#[tokio::test]
async fn a_unix_socket_is_for_owner_and_group_and_replaces_a_dead_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let node = TestAdmin::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let listen = AdminListen::Unix(path.clone());
    // A socket that nobody listens to any more.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listener = bind(&listen).unwrap();
    assert_eq!(listener.url(), format!("unix:{}", path.display()));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert_eq!(bind(&listen).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    node.admin.serve(listener).unwrap();
    let args = client::StatusArgs {
        node: client::Node {
            socket: Some(path),
            token_file: Some(token_file(folder.path(), "secret-reader\n")),
            ..client::Node::default()
        },
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = client::status(&args, &mut out, &mut err).await;
    let text = String::from_utf8(out).unwrap();
    assert_eq!(exit, client::Exit::Done, "{}", String::from_utf8_lossy(&err));
    assert!(
        text.contains("\nname: portico\n") && text.contains("sites[0].origin: assets\n"),
        "{text}"
    );
    // A file that is not a socket is not ours to remove.
    let file = folder.path().join("precious");
    std::fs::write(&file, "data").unwrap();
    assert!(bind(&AdminListen::Unix(file.clone())).is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
}

#[tokio::test]
async fn the_client_purges_and_tells_how_it_went() {
    let node = TestAdmin::start_with(|config, _| config.admin.purges_per_second = 2);
    let folder = tempfile::tempdir().unwrap();
    let run = async |token: &str, args: client::PurgeArgs| {
        let mut args = args;
        args.node.url = Some(format!("http://{}", node.address));
        args.node.token_file = Some(token_file(folder.path(), token));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = client::purge(&args, &mut out, &mut err).await;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (exit, text(out), text(err))
    };
    let args = client::PurgeArgs {
        tags: vec!["a".into(), "b".into()],
        urls: vec!["nobody.example/x".into()],
        soft: true,
        ..client::PurgeArgs::default()
    };
    let expected = (
        client::Exit::Done,
        "softly purged at position 1: 1 file, 2 tags\n".to_owned(),
        "warning: nobody.example/x: no site answers to this host\n".to_owned(),
    );
    assert_eq!(run("secret-purger", args.clone()).await, expected);
    let (exit, out, err) = run("secret-wrong", args.clone()).await;
    assert_eq!((exit, out.as_str()), (client::Exit::Failed, ""));
    assert!(err.contains("401") && err.contains("not known here"), "{err}");
    let (exit, _, err) = run("secret-ops", client::PurgeArgs::default()).await;
    assert_eq!(exit, client::Exit::Usage, "{err}");
    // Three requests are needed, and the third is one too many for this second.
    let mut many = client::PurgeArgs {
        tags: vec!["t".into(); 2_500],
        ..client::PurgeArgs::default()
    };
    many.node.json = true;
    let (exit, out, err) = run("secret-ops", many).await;
    assert_eq!((exit, out.lines().count()), (client::Exit::Partly, 2), "{err}");
    assert!(err.contains("429"), "{err}");
    // Nobody listens.
    let mut nobody = args;
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    nobody.node.url = Some(format!("http://{gone}"));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(
        client::purge(&nobody, &mut out, &mut err).await,
        client::Exit::Failed
    );
    assert!(
        String::from_utf8(err)
            .unwrap()
            .contains("no edge answers at http://127.0.0.1:")
    );
}

#[tokio::test]
async fn the_purge_method_obeys_the_same_rules() {
    let node = TestAdmin::start();
    let ask = async |target: &str, fields: &[(&'static str, &'static str)]| {
        let target = target.parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        node.admin
            .purge_method(&PurgeMethod {
                host: "cdn.example.com",
                target: &target,
                headers: &headers,
                client: "203.0.113.7".parse().unwrap(),
            })
            .await
    };
    let auth = ("authorization", "Bearer secret-purger");
    assert_eq!(ask("/a.js", &[]).await.status(), 401);
    assert_eq!(
        ask("/a.js", &[("authorization", "Bearer secret-reader")])
            .await
            .status(),
        403
    );
    assert_eq!(ask("/../a.js", &[auth]).await.status(), 400);
    assert_eq!(node.epochs.last(), Position::default());
    let done = ask("/a.js?v=1", &[auth, ("fastly-soft-purge", "1")]).await;
    let report: Value = serde_json::from_slice(done.body()).unwrap();
    assert_eq!(report["files"], json!(["cdn.example.com/a.js"]));
    assert_eq!(report["soft"], true);
    let done = ask(
        "/",
        &[auth, ("surrogate-key", "one two"), ("surrogate-key", "three")],
    )
    .await;
    let report: Value = serde_json::from_slice(done.body()).unwrap();
    assert_eq!(report["tags"], json!(["one", "two", "three"]));
    assert_eq!(report["files"], json!([]));
}

fn token_file(folder: &std::path::Path, token: &str) -> std::path::PathBuf {
    let path = folder.join("token");
    std::fs::write(&path, token).unwrap();
    path
}

/// Waits for a condition, within bounds.
async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("the condition did not come true");
}
