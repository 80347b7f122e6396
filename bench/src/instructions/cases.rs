//! The cases: parts of the request path, on a node as it is started for an operator, filled by its own fetches.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use clap::ValueEnum;
use edge::cache::key::Key;
use edge::cache::policy::directives::RequestDirectives;
use edge::cache::policy::{freshness, staleness};
use edge::clock::Clock;
use edge::exchange::asks::Asks;
use edge::exchange::lookup::{self, Lookup};
use edge::exchange::message::{Answering, Body, Request, Response, Scheme};
use edge::exchange::record::End;
use edge::representation::coding::{AcceptEncoding, Coding};
use edge::server::Node;
use edge::site::Router;
use http::header::{ACCEPT_ENCODING, IF_NONE_MATCH, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use crate::error::{Error, Result};
use crate::load::{BROWSER, HOST, Outcome};
use crate::scenario::block_on;

/// One case, as a process of its own runs it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CaseArguments {
    case: Case,
    repetitions: usize,
    origin: SocketAddr,
    folder: PathBuf,
}

/// A part of the request path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// Whether a stored response is fresh for this request.
    Freshness,
    /// Host and path to site and key.
    Key,
    /// Key to stored response, with its standing and its freshness.
    Lookup,
    /// What a client accepts, and the smallest form of it.
    Negotiation,
    /// The whole exchange of a hit: route, key, lookup, respond, record.
    Respond,
    /// The same, of a coded form.
    RespondCoded,
    /// The same, answered with 206.
    RespondRange,
    /// The same, answered with 304.
    RespondUnchanged,
}

impl Case {
    pub(super) const ALL: [Self; 8] = [
        Self::Freshness,
        Self::Key,
        Self::Lookup,
        Self::Negotiation,
        Self::Respond,
        Self::RespondCoded,
        Self::RespondRange,
        Self::RespondUnchanged,
    ];

    pub(super) fn token(self) -> &'static str {
        match self {
            Self::Freshness => "freshness",
            Self::Key => "key",
            Self::Lookup => "lookup",
            Self::Negotiation => "negotiation",
            Self::Respond => "respond",
            Self::RespondCoded => "respond-coded",
            Self::RespondRange => "respond-range",
            Self::RespondUnchanged => "respond-unchanged",
        }
    }

    /// How often it is run: enough that what happens now and then, as in the store's housekeeping, is spread evenly.
    pub(super) fn repetitions(self) -> usize {
        match self {
            Self::Freshness | Self::Key | Self::Lookup | Self::Negotiation => 10_000,
            _ => 2000,
        }
    }
}

/// Runs a case as often as it is told.
pub(crate) fn serve(arguments: &CaseArguments) -> Result<()> {
    let outcome = block_on(async {
        let bench = Bench::start(arguments.origin, &arguments.folder).await?;
        bench.run(arguments.case, arguments.repetitions).map(drop)
    })?;
    outcome.map_err(Error::Said)
}

/// A node that holds what the cases ask for.
pub(super) struct Bench {
    node: Node,
    clock: Clock,
}

const PLAIN: &str = "/f1k.bin";
const SCRIPT: &str = "/script.js";

impl Bench {
    /// A node in front of an origin; what it writes goes into `folder`.
    pub(super) async fn start(origin: SocketAddr, folder: &Path) -> Outcome<Self> {
        let text = format!(
            "workers = 1\n[listen]\nplain = [\"127.0.0.1:0\"]\nadmin = \"off\"\n[origin.content]\nkind = \"s3\"\n\
             credentials = \"anonymous\"\nbuckets = [{{ name = \"bench\", region = \"us-east-1\", \
             endpoint = \"http://{origin}\", path_style = true }}]\n[[site]]\nhosts = [\"{HOST}\"]\norigin = \"content\"\n\
             [[site.rule]]\npath = \"/client/*\"\nttl = \"60s\"\n"
        );
        let config = edge::config::parse(&text, "bench.toml", folder).map_err(|error| error.to_string())?;
        let clock = Clock::real();
        let control = tokio::runtime::Handle::current();
        let node = Node::start(config, None, clock.clone(), control).map_err(|error| error.to_string())?;
        let bench = Self { node, clock };
        bench.fill(PLAIN, &[]).await?;
        bench.fill(SCRIPT, &[(ACCEPT_ENCODING, BROWSER)]).await?;
        Ok(bench)
    }

    /// Asks until the answer is a hit.
    async fn fill(&self, path: &'static str, fields: &[(HeaderName, &str)]) -> Outcome<()> {
        for _ in 0..1000 {
            let response = come(self.node.exchange().run(self.request(path, fields))).await;
            let status = response.headers.get("cache-status").cloned();
            let is_hit = status
                .as_ref()
                .and_then(|status| status.to_str().ok())
                .is_some_and(|status| status.contains("hit"));
            finish(response);
            if is_hit {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("{path} is never a hit"))
    }

    fn request(&self, path: &'static str, fields: &[(HeaderName, &str)]) -> Request {
        // What a browser sends besides.
        let usual = [
            (
                "user-agent",
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0",
            ),
            ("accept", "*/*"),
            ("accept-language", "en-US,en;q=0.9"),
            ("origin", "https://app.example"),
            ("referer", "https://app.example/"),
            ("sec-fetch-dest", "script"),
            ("sec-fetch-mode", "cors"),
            ("sec-fetch-site", "cross-site"),
        ];
        let mut headers: HeaderMap = usual
            .into_iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        for (name, value) in fields {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        Request {
            method: Method::GET,
            scheme: Scheme::Https,
            host: HOST.into(),
            target: http::uri::PathAndQuery::from_static(path),
            version: Version::HTTP_2,
            headers,
            content: None,
            is_early: false,
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            received: self.clock.now(),
        }
    }

    /// Runs a case so often; says how long that took, without what was made ready for it.
    pub(super) fn run(&self, case: Case, repetitions: usize) -> Outcome<Duration> {
        match case {
            Case::Freshness => self.freshness(repetitions),
            Case::Key => self.key(repetitions),
            Case::Lookup => self.lookup(repetitions),
            Case::Negotiation => negotiation(repetitions),
            Case::Respond => self.respond(repetitions, || self.request(PLAIN, &[]), 200),
            Case::RespondCoded => {
                let request = || self.request(SCRIPT, &[(ACCEPT_ENCODING, BROWSER)]);
                self.respond(repetitions, request, 200)
            }
            Case::RespondRange => {
                let request = || self.request(PLAIN, &[(RANGE, "bytes=100-199")]);
                self.respond(repetitions, request, 206)
            }
            Case::RespondUnchanged => {
                let response = at_once(self.node.exchange().run(self.request(PLAIN, &[])))?;
                let tag = response.headers.get("etag").cloned();
                finish(response);
                let tag = tag.ok_or("it has no entity tag")?;
                let tag = tag.to_str().map_err(|error| error.to_string())?;
                let request = || self.request(PLAIN, &[(IF_NONE_MATCH, tag)]);
                self.respond(repetitions, request, 304)
            }
        }
    }

    fn respond(&self, repetitions: usize, request: impl Fn() -> Request, status: u16) -> Outcome<Duration> {
        let exchange = self.node.exchange();
        let requests = (0..repetitions).map(|_| request()).collect();
        timed(requests, |request| {
            let response = at_once(exchange.run(request))?;
            if response.status != status {
                return Err(format!("{} instead of {status}", response.status));
            }
            finish(response);
            Ok(())
        })
    }

    fn key(&self, repetitions: usize) -> Outcome<Duration> {
        let routes = self.node.exchange().routes();
        timed(vec!["/client/acme/app%2Ejs"; repetitions], |path| {
            let site = black_box(&routes.router)
                .route(HOST)
                .ok_or("there is no such site")?;
            let sought = site.seek(black_box(path), Some("v=1"));
            black_box(sought).map_err(|error| error.to_string())?;
            Ok(())
        })
    }

    fn lookup(&self, repetitions: usize) -> Outcome<Duration> {
        let exchange = self.node.exchange();
        let (request, now) = (self.request(PLAIN, &[]), self.clock.now());
        let key = key(&exchange.routes().router, PLAIN)?;
        let cache = exchange.cache();
        let sought = key.sought();
        timed(vec![(); repetitions], |()| {
            let found = lookup::lookup(
                &cache.memory,
                &cache.epochs,
                black_box(&sought),
                (black_box(&request), Asks::of(&request.headers)),
                false,
                now,
            );
            if !matches!(black_box(found), Lookup::Fresh(_)) {
                return Err("it is not fresh".to_owned());
            }
            Ok(())
        })
    }

    fn freshness(&self, repetitions: usize) -> Outcome<Duration> {
        let exchange = self.node.exchange();
        let key = key(&exchange.routes().router, PLAIN)?;
        let entry = exchange.cache().memory.find(&key).ok_or("it is not stored")?;
        let stored = entry.variants().first().ok_or("it is not stored")?;
        let (request, now) = (self.request(PLAIN, &[]), self.clock.now());
        timed(vec![(); repetitions], |()| {
            let directives = RequestDirectives::parse(black_box(&request.headers));
            let head = black_box(&stored.head);
            let age = freshness::current_age(head.initial_age, head.response_time, now);
            let verdict = staleness::judge(&head.lifetime, age, &directives, false, true);
            if black_box(verdict) != staleness::Verdict::Fresh {
                return Err("it is not fresh".to_owned());
            }
            Ok(())
        })
    }
}

fn key(router: &Router, path: &str) -> Outcome<Key> {
    let site = router.route(HOST).ok_or("there is no such site")?;
    site.key(path, Some("v=1")).map_err(|error| error.to_string())
}

/// One spelling that everybody sends, and one that nobody expects.
fn negotiation(repetitions: usize) -> Outcome<Duration> {
    let spellings = [BROWSER, "br;q=0.9, gzip;q=1.0, zstd;q=0.1, *;q=0"].map(HeaderValue::from_static);
    let sizes = [
        (Coding::Identity, 175_000),
        (Coding::Gzip, 52_000),
        (Coding::Br, 45_000),
    ];
    timed(vec![(); repetitions], |()| {
        for spelling in &spellings {
            let accepted = AcceptEncoding::parse([black_box(spelling)]);
            if black_box(accepted.smallest(black_box(sizes))) != Some(Coding::Br) {
                return Err("it is not br".to_owned());
            }
        }
        Ok(())
    })
}

fn timed<T>(items: Vec<T>, work: impl FnMut(T) -> Outcome<()>) -> Outcome<Duration> {
    let began = crate::clock::now();
    measured(items, work)?;
    Ok(began.elapsed())
}

/// Everything that happens in here is counted, on this thread, and nothing else: valgrind knows it by its name.
#[inline(never)]
fn measured<T>(items: Vec<T>, work: impl FnMut(T) -> Outcome<()>) -> Outcome<()> {
    items.into_iter().try_for_each(work)
}

/// A hit waits for nothing: it is at hand, or there when it is first looked at.
fn at_once(answering: Answering) -> Outcome<Response> {
    let mut future = match answering {
        Answering::Now(response) => return Ok(response),
        Answering::Later(future) => future,
    };
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(response) => Ok(response),
        Poll::Pending => Err("a hit waited".to_owned()),
    }
}

async fn come(answering: Answering) -> Response {
    match answering {
        Answering::Now(response) => response,
        Answering::Later(future) => future.await,
    }
}

/// What the HTTP version does when the last byte has left.
fn finish(response: Response) {
    let sent = match &response.body {
        Body::Full(bytes) => bytes.len() as u64,
        _ => 0,
    };
    response.record.finish(sent, End::Whole);
}
