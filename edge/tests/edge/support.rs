//! The test vocabulary: a bucket that can misbehave, and a whole node in front of it, on ephemeral ports and with a clock
//! that is moved by hand.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use edge::cache::epoch::Purge;
use edge::cache::key::Key;
use edge::clock::Clock;
use edge::config::{self, Config, Credentials, OriginKind, OriginTimeouts, Secret};
use edge::exchange::Exchange;
use edge::http::Kind;
use edge::server::Node;
use origin_sync::bucket::{self, Fault, Faults, Meta, Rule, RuleId, Seen};
use tempfile::TempDir;

use crate::client::{Answer, TestClient, soon};

/// The bucket that nodes are started in front of.
pub(crate) const BUCKET: &str = "assets";

/// The host of the site that nodes serve.
pub(crate) const HOST: &str = "cdn.test";

/// The embedded bucket, with its fault plan.
pub(crate) struct TestBucket {
    server: bucket::Server,
    _dir: TempDir,
}

impl TestBucket {
    pub(crate) async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let mut options = bucket::Options::new(dir.path());
        options.buckets = vec![BUCKET.to_owned()];
        options.durable = false;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            server: bucket::Server::start(options, listener).await.unwrap(),
            _dir: dir,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Puts an object with nothing but a Cache-Control, or without one where that is empty.
    pub(crate) async fn put(&self, key: &str, body: impl Into<Vec<u8>>, cache_control: &str) {
        let cache_control = (!cache_control.is_empty()).then(|| cache_control.to_owned());
        self.put_with(
            key,
            body,
            Meta {
                cache_control,
                ..Meta::default()
            },
        )
        .await;
    }

    pub(crate) async fn put_with(&self, key: &str, body: impl Into<Vec<u8>>, meta: Meta) {
        self.server
            .store()
            .put(BUCKET, key, body.into(), meta)
            .await
            .unwrap();
    }

    pub(crate) async fn delete(&self, key: &str) {
        self.server.store().delete(BUCKET, key).await.unwrap();
    }

    pub(crate) fn faults(&self) -> &Faults {
        self.server.faults()
    }

    pub(crate) fn fault(&self, rule: Rule) -> RuleId {
        self.server.faults().add(rule)
    }

    /// The requests for `key` so far.
    pub(crate) fn asked(&self, key: &str) -> Vec<Seen> {
        self.server
            .log()
            .into_iter()
            .filter(|seen| seen.key == key)
            .collect()
    }

    /// Every request so far.
    pub(crate) fn log(&self) -> Vec<Seen> {
        self.server.log()
    }

    /// Waits until `key` has been asked for `count` times.
    pub(crate) async fn until_asked(&self, key: &str, count: usize) {
        let enough = |log: &[Seen]| log.iter().filter(|seen| seen.key == key).count() >= count;
        soon("the bucket to be asked", self.server.until_seen(enough)).await;
    }

    pub(crate) async fn stop(self) {
        self.server.stop().await;
    }
}

/// A whole node.
pub(crate) struct TestEdge {
    pub(crate) node: Node,
    pub(crate) clock: Clock,
    plain: SocketAddr,
    dir: TempDir,
}

impl TestEdge {
    /// A node with one plain listener, whose site `cdn.test` is configured by the lines of `site`.
    pub(crate) async fn start(bucket: &TestBucket, site: &str) -> Self {
        Self::start_with(bucket, site, "", |_| {}).await
    }

    /// As [`TestEdge::start`], with further tables of the configuration file, and a last change by hand.
    pub(crate) async fn start_with(
        bucket: &TestBucket,
        site: &str,
        tables: &str,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let text = text(bucket.address(), site, tables);
        let mut config =
            config::parse(&text, "test.toml", dir.path()).unwrap_or_else(|errors| panic!("{errors}"));
        for origin in &mut config.origins {
            let OriginKind::S3(s3) = &mut origin.kind else {
                continue;
            };
            s3.credentials = Credentials::Static {
                access_key_id: bucket::Options::ACCESS_KEY_ID.into(),
                secret_access_key: Secret(bucket::Options::SECRET_ACCESS_KEY.into()),
            };
            if s3.timeouts == OriginTimeouts::default() {
                s3.timeouts = patient();
            }
        }
        if !tables.contains("stale_after") {
            config.cache.stale_after = Duration::from_secs(30);
        }
        change(&mut config);
        Self::of(config, None, dir)
    }

    /// As [`TestEdge::start`], with the configuration in a file, as a reload needs it.
    pub(crate) async fn start_from_file(bucket: &TestBucket, site: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("edge.toml");
        std::fs::write(dir.path().join("secret"), bucket::Options::SECRET_ACCESS_KEY).unwrap();
        std::fs::write(&file, file_text(bucket, site)).unwrap();
        let config = config::load(&file).unwrap_or_else(|errors| panic!("{errors}"));
        Self::of(config, Some(file), dir)
    }

    /// Writes the configuration file anew, with these lines of the site.
    pub(crate) fn rewrite(&self, bucket: &TestBucket, site: &str) {
        std::fs::write(self.dir.path().join("edge.toml"), file_text(bucket, site)).unwrap();
    }

    /// A node in front of an origin of kind `http` that is configured by the lines of `origin`, as is its site by those
    /// of `site`.
    pub(crate) async fn start_http(origin: &str, site: &str, tables: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let text = format!(
            "{HEAD}[origin.app]\nkind = \"http\"\n{origin}\n\
             [[site]]\nhosts = [\"{HOST}\"]\norigin = \"app\"\n{site}\n{tables}\n"
        );
        let mut config =
            config::parse(&text, "test.toml", dir.path()).unwrap_or_else(|errors| panic!("{errors}"));
        if let Some(disk) = &mut config.cache.disk {
            disk.patience = PATIENT;
        }
        Self::of(config, None, dir)
    }

    fn of(config: Config, file: Option<PathBuf>, dir: TempDir) -> Self {
        let clock = Clock::manual(Clock::real().now());
        let node = Node::start(config, file, clock.clone(), tokio::runtime::Handle::current()).unwrap();
        let plain = node
            .addresses()
            .iter()
            .find(|(kind, _)| *kind == Kind::Plain)
            .unwrap()
            .1;
        Self {
            node,
            clock,
            plain,
            dir,
        }
    }

    pub(crate) fn exchange(&self) -> &Arc<Exchange> {
        self.node.exchange()
    }

    /// A connection over which nothing has been said yet.
    pub(crate) async fn client(&self) -> TestClient {
        TestClient::plain(self.plain).await
    }

    pub(crate) async fn get(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, fields).await
    }

    /// Asks over a connection of its own, and waits for the whole answer.
    pub(crate) async fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut client = self.client().await;
        client.send(request(method, path, fields)).await;
        if method == "HEAD" {
            client.answer_to_head().await
        } else {
            client.answer().await
        }
    }

    /// Purges; when it returns, nothing that was purged is found.
    pub(crate) fn purge(&self, purge: Purge) {
        self.exchange().cache().epochs.purge(&purge);
    }

    /// Moves the clock, and that of the bucket with it: a `Date` from the past would make its answers old.
    pub(crate) fn advance(&self, bucket: &TestBucket, time: Duration) {
        self.clock.advance(time);
        let ahead = self.clock.now().since(Clock::real().now());
        bucket.fault(Rule::new(Fault::ClockAhead(ahead)));
    }

    /// The key of a path of the site.
    pub(crate) fn key(&self, path: &str) -> Key {
        let routes = self.exchange().routes();
        routes.router.route(HOST).unwrap().key(path, None).unwrap()
    }

    /// The metric's value in `line`, as `/metrics` shows it.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        let text = self.node.registry().encode();
        let found = text
            .lines()
            .find_map(|shown| shown.strip_prefix(line)?.strip_prefix(' '));
        found
            .unwrap_or_else(|| panic!("no metric {line} in\n{text}"))
            .parse()
            .unwrap()
    }

    /// Waits until `done` says so.
    pub(crate) async fn until(&self, what: &str, done: impl Fn() -> bool) {
        let poll = async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        soon(what, poll).await;
    }

    pub(crate) async fn stop(self) {
        self.node.stop().await;
    }
}

/// Longer than anything takes that does not hang, however slow the machine.
pub(crate) const PATIENT: Duration = Duration::from_secs(60);

/// Deadlines that no good origin misses.
fn patient() -> OriginTimeouts {
    OriginTimeouts {
        connect: PATIENT,
        read: PATIENT,
        attempt: PATIENT,
        operation: 2 * PATIENT,
        ..OriginTimeouts::default()
    }
}

/// A request for the site, to be sent over a plain connection.
pub(crate) fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> String {
    let fields: String = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("{method} {path} HTTP/1.1\r\nhost: {HOST}\r\n{fields}\r\n")
}

/// A configuration file whose credentials are the bucket's.
fn file_text(bucket: &TestBucket, site: &str) -> String {
    let keys = format!(
        "{{ access_key_id = \"{}\", secret_access_key_file = \"secret\" }}",
        bucket::Options::ACCESS_KEY_ID
    );
    text(bucket.address(), site, "").replace("\"anonymous\"", &keys)
}

/// One worker, one plain listener, a quick end.
const HEAD: &str = "workers = 1\n[listen]\nplain = [\"127.0.0.1:0\"]\nadmin = \"off\"\n\
     [drain]\ndelay = \"0s\"\ndeadline = \"5s\"\n";

fn text(bucket: SocketAddr, site: &str, tables: &str) -> String {
    format!(
        "{HEAD}[origin.assets]\nkind = \"s3\"\ncredentials = \"anonymous\"\n\
         buckets = [{{ name = \"{BUCKET}\", region = \"us-east-1\", endpoint = \"http://{bucket}\", path_style = true }}]\n\
         [[site]]\nhosts = [\"{HOST}\"]\norigin = \"assets\"\n{site}\n{tables}\n"
    )
}

/// All of `futures`, concurrently.
pub(crate) async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures
        .into_iter()
        .map(|future| (Box::pin(future), None))
        .collect();
    std::future::poll_fn(|cx| {
        for (future, output) in &mut futures {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(cx)
            {
                *output = Some(ready);
            }
        }
        if futures.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}
