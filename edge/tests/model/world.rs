//! A node in front of the origin, and what happens to them step by step.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use edge::cache::epoch::{self, Prefix, Url};
use edge::cache::store::StoredResponse;
use edge::cache::tag::Tag;
use edge::clock::{Clock, Timestamp};
use edge::config::{self, OriginKind};
use edge::exchange::message::{Answering, Body, Request, Response, Scheme};
use edge::exchange::{Cache, Exchange};
use edge::server::Node;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use crate::oracle::{Contact, Got, Oracle, Said};
use crate::origin::Origin;
use crate::plan::{Ask, KEYS, Of, Purge, Step};

const HOST: &str = "model.test";

/// When a run begins: a whole second, and far from any date that a script could reach.
const EPOCH: u64 = 1_900_000_000;

/// More than anything takes here, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is special about a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// The node's memory; with little of it nothing is promised.
    pub(crate) memory_bytes: Option<u64>,
}

/// What a run did, so that nobody takes an empty one for a proof.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) steps: u64,
    pub(crate) answers: u64,
    pub(crate) contacts: u64,
    pub(crate) confirmed: u64,
    pub(crate) failures: u64,
    pub(crate) reused: u64,
    pub(crate) had_to: u64,
    pub(crate) changes: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.answers += other.answers;
        self.contacts += other.contacts;
        self.confirmed += other.confirmed;
        self.failures += other.failures;
        self.reused += other.reused;
        self.had_to += other.had_to;
        self.changes += other.changes;
    }
}

/// A step that went wrong.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) step: usize,
    pub(crate) what: String,
    /// What was seen up to that step.
    pub(crate) story: String,
}

impl Failure {
    /// What went wrong, without its numbers.
    pub(crate) fn what_kind(&self) -> String {
        self.what.chars().filter(|c| !c.is_ascii_digit()).collect()
    }
}

/// The path of a key. The first three share a folder.
pub(crate) fn path(key: u8) -> String {
    let folder = if in_folder(key) { "/folder" } else { "" };
    format!("{folder}/k{key}")
}

pub(crate) fn in_folder(key: u8) -> bool {
    key < 3
}

/// The key of a path, if it is the path of one.
pub(crate) fn key_of(path: &str) -> Option<u8> {
    (0..KEYS).find(|key| self::path(*key) == path)
}

/// The content of a version: of its own length, and unlike any other.
pub(crate) fn content(key: u8, version: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(version << 8 | u64::from(key));
    let length = match rng.u32(0..20) {
        0 => 0,
        1 => rng.usize(10_000..40_000),
        _ => rng.usize(1..400),
    };
    let mut bytes = format!("{key}/{version}:").into_bytes();
    bytes.resize_with(length.max(bytes.len()), || rng.u8(..));
    bytes.truncate(length);
    bytes
}

/// `bytes=first-last`.
pub(crate) fn read_range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().unwrap_or(u64::MAX)))
}

/// Runs `steps` in a world of their own.
pub(crate) async fn run(steps: Vec<Step>, options: Options) -> Result<Tally, Failure> {
    let mut world = World::start(options).await;
    let mut result = Ok(());
    for (at, step) in steps.iter().enumerate() {
        world.tell(&step.brief());
        if let Err(what) = world.step(step).await {
            let story = std::mem::take(&mut world.story);
            result = Err(Failure {
                step: at,
                what,
                story,
            });
            break;
        }
        world.tally.steps += 1;
    }
    let ended = world.end().await;
    result?;
    ended.map_err(|what| Failure {
        step: steps.len() - 1,
        what,
        story: String::new(),
    })
}

struct World {
    node: Node,
    clock: Clock,
    origin: Origin,
    oracle: Oracle,
    options: Options,
    tally: Tally,
    story: String,
}

impl World {
    async fn start(options: Options) -> Self {
        let origin = Origin::start(EPOCH).await;
        let text = format!(
            "workers = 1\n[listen]\nplain = [\"127.0.0.1:0\"]\nadmin = \"off\"\n[drain]\ndelay = \"0s\"\ndeadline = \"5s\"\n\
             [origin.model]\nkind = \"http\"\nurl = \"http://{}\"\n\
             [[site]]\nhosts = [\"{HOST}\"]\norigin = \"model\"\npreset = \"plain\"\nstrict = true\nquery = \"keep\"\n",
            origin.address
        );
        let mut config =
            config::parse(&text, "model.toml", ".".as_ref()).unwrap_or_else(|errors| panic!("{errors}"));
        // Less than a file may ask for, so that a handful of small responses already do not fit.
        config.cache.memory_bytes = options.memory_bytes.unwrap_or(64 << 20);
        // The model knows no slow origin: what it may serve stale, it serves because the origin failed.
        config.cache.stale_after = PATIENCE;
        for origin in &mut config.origins {
            if let OriginKind::Http(http) = &mut origin.kind {
                (http.timeouts.connect, http.timeouts.read) = (PATIENCE, PATIENCE);
                (http.timeouts.attempt, http.timeouts.operation) = (PATIENCE, PATIENCE);
            }
        }
        let clock = Clock::manual(Timestamp::from_unix_seconds(EPOCH as i64));
        let node = Node::start(config, None, clock.clone(), tokio::runtime::Handle::current()).unwrap();
        let exchange = Arc::clone(node.exchange());
        origin.purge_with(Arc::new(move |what| {
            exchange.cache().epochs.purge(&edges_purge(what));
        }));
        Self {
            node,
            clock,
            origin,
            oracle: Oracle::default(),
            options,
            tally: Tally::default(),
            story: String::new(),
        }
    }

    /// Adds to the story, of which the end is kept.
    fn tell(&mut self, line: &str) {
        if self.story.len() > 200_000 {
            self.story = self.story.split_off(100_000);
        }
        let _ = writeln!(self.story, "{line}");
    }

    fn exchange(&self) -> &Arc<Exchange> {
        self.node.exchange()
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Wait(seconds) => {
                self.clock.advance(Duration::from_secs(*seconds));
                self.oracle.now += seconds;
                Ok(())
            }
            Step::Purge(what) => {
                self.exchange().cache().epochs.purge(&edges_purge(what));
                self.oracle.purge(what);
                Ok(())
            }
            Step::Change {
                key,
                method,
                status,
                names,
            } => {
                self.origin.tell_change(*status, *names, self.oracle.now);
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let response = answer(
                    self.exchange(),
                    request(method, *key, HeaderMap::new(), self.clock.now()),
                )
                .await;
                let seen = response.status.as_u16();
                let _ = read(response.body).await;
                if self.origin.changes() > 0 {
                    self.tally.changes += 1;
                    self.oracle.changed(*key, *names, *status);
                    // Where there is hardly any memory there may be no room to hand an answer on.
                    let is_short = self.options.memory_bytes.is_some() && seen == 503;
                    if seen != *status && !is_short {
                        return Err(format!("the origin's {status} became {seen}"));
                    }
                }
                Ok(())
            }
            Step::Ask { ask, count, script } => {
                self.origin.tell(script, self.oracle.now, ask.key);
                self.asks(ask, *count).await
            }
        }
    }

    async fn asks(&mut self, ask: &Ask, count: usize) -> Result<(), String> {
        let before = self.held(ask.key);
        let mut under_way = Vec::new();
        for _ in 0..count {
            let (exchange, ask, now) = (Arc::clone(self.exchange()), ask.clone(), self.clock.now());
            under_way.push(tokio::spawn(async move { one(&exchange, &ask, now).await }));
        }
        let mut seen = Vec::new();
        for each in under_way {
            seen.push(
                each.await
                    .map_err(|panic| format!("an exchange panicked: {panic}"))??,
            );
        }
        let behind = seen
            .iter()
            .any(|seen| seen.status_line.contains("while-revalidat"));
        // Without room for an answer the origin is as good as out of reach.
        let words: &[&str] = match self.options.memory_bytes {
            Some(_) => &["timeout", "connection_limit_reached"],
            None => &["timeout"],
        };
        let is_cut_off = |seen: &Seen| words.iter().any(|word| seen.status_line.contains(word));
        let slow = seen.iter().any(is_cut_off);
        let mut contacts = self.origin.contacts();
        let failed = contacts
            .iter()
            .any(|contact| contact.said == Said::Nothing || is_cut(contact));
        if behind || !failed {
            self.settle(ask.key).await?;
            contacts.extend(self.origin.contacts());
        }
        for each in &seen {
            self.tell(&format!("    got {:?} {}", each.got, each.status_line));
        }
        for contact in &contacts {
            let method = if contact.head { "HEAD" } else { "GET" };
            self.tell(&format!("    the origin at {method}: {:?}", contact.said));
        }
        self.count(&contacts, seen.len());
        if self.options.memory_bytes.is_some() {
            self.oracle.forget_promises();
        }
        let got: Vec<Got> = seen.into_iter().map(|seen| seen.got).collect();
        self.oracle
            .judge(ask, &contacts, &got, slow)
            .map_err(|what| format!("{what}\nheld before: {before}\nheld now: {}", self.held(ask.key)))?;
        self.oracle.tidy();
        self.within_the_cap().await
    }

    /// Bodies never exceed the cap. The fields of what was evicted may, until they are freed by whoever uses the store next,
    /// and later.
    async fn within_the_cap(&self) -> Result<(), String> {
        let (memory, budget) = (&self.exchange().cache().memory, &self.exchange().cache().budget);
        for _ in 0..12_000 {
            if budget.used() <= budget.capacity() {
                return Ok(());
            }
            memory.entries();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(format!(
            "{} bytes in flight, over the cap; {} stored",
            budget.used(),
            memory.bytes()
        ))
    }

    /// What the node holds under a key, and how that stands towards the purges.
    fn held(&self, key: u8) -> String {
        let routes = self.exchange().routes();
        let site = routes.router.route(HOST).expect("the node has one site");
        let key = site.key(&path(key), None).expect("a good path");
        let cache = self.exchange().cache();
        let of = |stored: &Arc<StoredResponse>| {
            let head = &stored.head;
            let standing = cache.epochs.judge(&key, &head.tags, head.position);
            let number = head.origin_fields.get("x-number");
            format!(
                "{number:?} since {:?}: {standing:?}, {:?}",
                head.position, head.lifetime.fresh
            )
        };
        let held = cache.memory.find(&key);
        let held: Vec<_> = held.iter().flat_map(|held| held.variants()).map(of).collect();
        format!("{held:?} at {:?}", cache.epochs.now())
    }

    fn count(&mut self, contacts: &[Contact], answers: usize) {
        self.tally.answers += answers as u64;
        self.tally.contacts += contacts.len() as u64;
        let of =
            |said: fn(&Said) -> bool| contacts.iter().filter(|contact| said(&contact.said)).count() as u64;
        self.tally.confirmed += of(|said| matches!(said, Said::NotModified { .. }));
        self.tally.failures += of(|said| matches!(said, Said::Nothing));
    }

    /// Waits until nothing is fetched for `key` any more. A failure is held for a moment, and those of other keys are not
    /// waited for.
    async fn settle(&self, key: u8) -> Result<(), String> {
        let routes = self.exchange().routes();
        let site = routes.router.route(HOST).expect("the node has one site");
        let key = site.key(&path(key), None).expect("a good path");
        self.until(|cache| !cache.flights.contains(&key)).await
    }

    async fn until(&self, is_done: impl Fn(&Cache) -> bool) -> Result<(), String> {
        for round in 0..60_000 {
            if is_done(self.exchange().cache()) {
                return Ok(());
            }
            if round < 50 {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Err("a fetch never ends".to_owned())
    }

    /// All bytes are given back.
    async fn end(mut self) -> Result<Tally, String> {
        self.until(|cache| cache.flights.is_empty()).await?;
        // What is stored counts as well, so it goes first.
        let routes = self.exchange().routes();
        let site = routes.router.route(HOST).expect("the node has one site");
        for key in 0..KEYS {
            let key = site.key(&path(key), None).expect("a good path");
            self.exchange().cache().memory.remove(&key);
        }
        drop(routes);
        let (memory, budget) = (&self.exchange().cache().memory, &self.exchange().cache().budget);
        for _ in 0..12_000 {
            // What was removed is freed by whoever uses the store next, and later.
            memory.entries();
            if budget.used() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let left = budget.used();
        self.tally.reused = self.oracle.reused;
        self.tally.had_to = self.oracle.had_to;
        self.node.stop().await;
        if left > 0 {
            return Err(format!("{left} bytes are in flight for ever"));
        }
        Ok(self.tally)
    }
}

fn is_cut(contact: &Contact) -> bool {
    matches!(contact.said, Said::Full { cut: true, .. })
}

/// What one client saw.
struct Seen {
    got: Got,
    status_line: String,
}

/// Asks, and checks by itself what needs no memory of other answers: that content and length are those of the version.
async fn one(exchange: &Arc<Exchange>, ask: &Ask, now: Timestamp) -> Result<Seen, String> {
    let mut fields = HeaderMap::new();
    let mut put = |name: &'static str, value: &str| {
        fields.insert(
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        );
    };
    if let Some(control) = ask.control.write() {
        put("cache-control", &control);
    }
    if let Some(variant) = ask.variant {
        put("x-variant", variant);
    }
    if ask.authorized {
        put("authorization", "Basic bW9kZWw6bW9kZWw=");
    }
    if let Some((first, last)) = ask.range {
        put("range", &format!("bytes={first}-{last}"));
    }
    let method = if ask.head { Method::HEAD } else { Method::GET };
    let response = answer(exchange, request(method, ask.key, fields, now)).await;
    let Response {
        status,
        headers,
        body,
        ..
    } = response;
    let (status, bytes) = (status.as_u16(), read(body).await);
    let number = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
    };
    let said = headers
        .get("cache-status")
        .map(|value| value.to_str().unwrap_or_default());
    let status_line = format!("{status} {said:?}");
    let seen = |got| {
        Ok(Seen {
            got,
            status_line: status_line.clone(),
        })
    };
    let shown = number("x-version").or_else(|| number("x-head-version").filter(|_| ask.head));
    let (Some(name), Some(version)) = (number("x-number"), shown) else {
        return seen(Got::Failed(status));
    };
    let whole = bytes.is_ok();
    let age = number("age");
    let got = Got::Served {
        number: name,
        version,
        age,
        whole,
    };
    let Ok(bytes) = bytes else {
        return seen(got);
    };
    let mut due = content(ask.key, version);
    if status == 206 {
        let text = headers
            .get("content-range")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let shown = text.strip_prefix("bytes ").and_then(|text| text.split_once('/'));
        let Some(((first, last), length)) =
            shown.and_then(|(range, length)| Some((range.split_once('-')?, length)))
        else {
            return Err(format!("a 206 with Content-Range {text:?}"));
        };
        let (first, last) = (first.parse::<usize>().unwrap(), last.parse::<usize>().unwrap());
        if ask.range.map(|(first, _)| first as usize) != Some(first)
            || length != due.len().to_string()
            || last >= due.len()
        {
            return Err(format!(
                "asked for {:?} of {} bytes, got {text}",
                ask.range,
                due.len()
            ));
        }
        due = due[first..=last].to_vec();
    }
    let has_content = !ask.head && status != 204 && status != 304;
    if has_content && bytes != due {
        return Err(format!(
            "answer {name}: {} bytes that are not the {} of version {version}",
            bytes.len(),
            due.len()
        ));
    }
    if !has_content && !bytes.is_empty() {
        return Err(format!("answer {name}: content where there is none"));
    }
    match number("content-length") {
        Some(length) if has_content && length != due.len() as u64 => {
            Err(format!("answer {name}: a length of {length}"))
        }
        _ => seen(got),
    }
}

async fn answer(exchange: &Arc<Exchange>, request: Request) -> Response {
    match exchange.run(request) {
        Answering::Now(response) => response,
        Answering::Later(response) => response.await,
    }
}

async fn read(body: Body) -> Result<Vec<u8>, ()> {
    match body {
        Body::Empty => Ok(Vec::new()),
        Body::Full(bytes) => Ok(bytes.to_vec()),
        Body::Parts(parts) => Ok(parts.into_iter().flatten().collect()),
        Body::Inflight(mut reader) => {
            let mut all = Vec::new();
            while let Some(chunk) = reader.chunk().await {
                all.extend(chunk.map_err(drop)?);
            }
            Ok(all)
        }
    }
}

fn request(method: Method, key: u8, headers: HeaderMap, received: Timestamp) -> Request {
    Request {
        method,
        scheme: Scheme::Http,
        host: HOST.into(),
        target: path(key).parse().unwrap(),
        version: Version::HTTP_11,
        headers,
        client: Ipv4Addr::LOCALHOST.into(),
        received,
        content: None,
        is_early: false,
    }
}

fn edges_purge(what: &Purge) -> epoch::Purge {
    let mut purge = epoch::Purge {
        soft: what.soft,
        ..epoch::Purge::default()
    };
    match what.of {
        Of::Key(key) => purge.urls.push(Url {
            host: HOST.to_owned(),
            path: path(key),
            query: None,
        }),
        Of::Tag(tag) => purge.tags.push(Tag::new(&format!("tag-{tag}")).unwrap()),
        Of::Folder => purge.prefixes.push(Prefix {
            host: HOST.to_owned(),
            path: "/folder/".to_owned(),
        }),
        Of::Host => purge.hosts.push(HOST.to_owned()),
        Of::Everything => purge.everything = true,
    }
    purge
}
