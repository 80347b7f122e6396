//! A door with scripted answers behind it, on real sockets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use edge::cache::inflight::{self, Broken};
use edge::cache::store::Budget;
use edge::clock::Clock;
use edge::config::{Limits, Listen};
use edge::drain::Drain;
use edge::exchange::Refused;
use edge::exchange::error::Failure;
use edge::exchange::message::{Answering, Body, Request, Response};
use edge::exchange::record::{End, Record};
use edge::http::{Answer, Door, Kind};
use edge::listener::{self, Setup, Workers};
use edge::telemetry::metrics::Registry;
use edge::tls;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::sync::Semaphore;

/// What `/big/<count>` is cut from.
static BIG: LazyLock<Bytes> = LazyLock::new(|| vec![b'x'; 64 << 20].into());

/// Answers by path, and remembers what it was asked.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Requests that reached it.
    pub(crate) asked: AtomicU32,
    /// How the sending of each answer ended.
    pub(crate) ends: Arc<Mutex<Vec<(u64, End)>>>,
    /// A permit lets one `/gate` go.
    pub(crate) gate: Gate,
}

/// Held shut until a test opens it.
#[derive(Debug)]
pub(crate) struct Gate(pub(crate) Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl Script {
    fn response(&self, status: u16, body: Body) -> Response {
        let ends = Arc::clone(&self.ends);
        Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body,
            record: Record::observed(move |sent, end| ends.lock().unwrap().push((sent, end))),
        }
    }

    async fn broken(length: Option<u64>) -> Body {
        let (mut writer, joiner) = inflight::open(length, Budget::new(1000).reserve(0, 1000));
        let reader = joiner.join().unwrap();
        writer.write(Bytes::from_static(b"half")).await;
        writer.fail(Broken::Origin);
        Body::Inflight(reader)
    }
}

impl Answer for Script {
    fn run(self: &Arc<Self>, request: Request) -> Answering {
        let script = Arc::clone(self);
        // Once of each kind: what is at hand and what is to come are answered, and may panic, alike.
        match request.target.path() {
            "/panic-at-once" => panic!("on purpose"),
            "/at-once" => Answering::Now(script.response(200, Body::Empty)),
            _ => Answering::later(async move { script.play(request).await }),
        }
    }

    fn redirect(self: &Arc<Self>, _request: Request) -> Answering {
        Answering::Now(self.response(308, Body::Empty))
    }

    fn refuse(&self, _refused: Refused, failure: Failure) -> Response {
        self.response(failure.status().as_u16(), Body::Full(Bytes::from_static(b"no")))
    }
}

impl Script {
    async fn play(&self, request: Request) -> Response {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if ![Method::GET, Method::HEAD].contains(&request.method) {
            let mut response = self.response(405, Body::Empty);
            response
                .headers
                .insert("allow", HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let path = request.target.path();
        let body = match path {
            "/panic" => panic!("on purpose"),
            "/gate" => {
                self.gate.0.acquire().await.unwrap().forget();
                Body::Full(Bytes::from_static(b"open"))
            }
            "/broken" => Self::broken(None).await,
            "/broken-length" => Self::broken(Some(10)).await,
            "/304" => return self.response(304, Body::Empty),
            "/parts" => Body::Parts([&b"a"[..], b"bc"].map(Bytes::from_static).into()),
            _ => match path.strip_prefix("/big/") {
                Some(count) => Body::Full(BIG.slice(..count.parse::<usize>().unwrap())),
                None => Body::Full(format!("{} {} {}", request.method, request.host, request.target).into()),
            },
        };
        self.response(200, body)
    }
}

/// A running door.
pub(crate) struct TestDoor {
    pub(crate) https: SocketAddr,
    pub(crate) plain: SocketAddr,
    pub(crate) redirect: SocketAddr,
    pub(crate) script: Arc<Script>,
    pub(crate) registry: Registry,
    pub(crate) drain: Drain,
    pub(crate) workers: Workers,
    pub(crate) ca: PathBuf,
    _folder: tempfile::TempDir,
}

/// Limits that are reached within a test.
pub(crate) fn quick() -> Limits {
    Limits {
        header: Duration::from_secs(1),
        idle: Duration::from_secs(12),
        write_stall: Duration::from_millis(1500),
        handshake: Duration::from_secs(10),
        ..Limits::default()
    }
}

impl TestDoor {
    pub(crate) fn start() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = Clock::real().now().to_system_time();
        let ca = certs::DevCa::open_or_create(folder.path(), now).unwrap();
        let pair = ca.issue(&["localhost".into()], &[], now).unwrap();
        let bundle = certs::load(&pair.chain, &pair.key, now).unwrap();
        let registry = Registry::default();
        let resolver = Arc::new(certs::Resolver::new([(Arc::new(bundle), true)]));
        let acceptor = tls::Acceptor::new(resolver, &registry).unwrap();
        let (drain, script) = (Drain::default(), Arc::new(Script::default()));
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listen = Listen {
            https: vec![any],
            http: vec![any],
            plain: vec![any],
            ..Listen::default()
        };
        let bound = listener::bind(&listen, 2).unwrap();
        let address = |kind| bound.iter().find(|one| one.kind == kind).unwrap().address;
        let (https, plain, redirect) = (
            address(Kind::Https),
            address(Kind::Plain),
            address(Kind::Redirect),
        );
        let door = Door::new(
            Arc::clone(&script),
            &limits,
            Clock::real(),
            drain.clone(),
            &registry,
        );
        let setup = Setup {
            door,
            acceptor,
            limits,
            drain: drain.clone(),
            registry: registry.clone(),
        };
        let workers = Workers::start(bound, setup).unwrap();
        let ca = ca.certificate();
        Self {
            https,
            plain,
            redirect,
            script,
            registry,
            drain,
            workers,
            ca,
            _folder: folder,
        }
    }

    /// The value of a metric's line.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        let all = self.registry.encode();
        let found = all
            .lines()
            .find_map(|text| text.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("no {line} in {all}"))
    }

    /// Waits until a metric has a value.
    pub(crate) async fn metric_reaches(&self, line: &str, value: u64) {
        let reached = async {
            while self.metric(line) < value {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        super::client::soon(line, reached).await;
    }

    pub(crate) fn asked(&self) -> u32 {
        self.script.asked.load(Ordering::SeqCst)
    }
}
