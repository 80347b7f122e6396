//! The request path: route, key, lookup, then hit, revalidate or fetch, then respond.
//!
//! [`Exchange::run`] is the only place that sequences; everything it calls answers a question. It knows no version of
//! HTTP, and it reads the clock once for the decision.

mod answer;
pub mod asks;
mod confirm;
pub mod error;
pub mod fetch;
mod fill;
mod front;
mod head;
mod incoming;
mod inspect;
pub mod intake;
mod invalidate;
pub mod lookup;
pub mod message;
pub mod order;
mod own;
mod partial;
mod parts;
pub mod recode;
pub mod record;
mod relay;
mod released;
pub mod respond;
mod revalidate;
mod rollout;
pub mod select;
mod tier;
mod wait;
pub mod warm;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::RANGE;
use http::{Method, StatusCode};
use tokio::runtime::Handle;

use self::asks::Asks;
use self::error::Failure;
use self::fetch::{Arriving, Fetched};
use self::lookup::{Lookup, Stale};
use self::message::{Answering, Request, Response};
use self::order::Order;
pub use self::own::Refused;
pub use self::parts::{Cache, Challenged, Challenger, Challenges, Parts, PurgeMethod, Purging, Routes};
use self::record::{Metrics, Sinks};
use self::respond::{Begun, Forwarded, Place, Said, said};
use self::select::Subject;
pub use self::tier::Promotions;
pub use self::warm::{BadUrl, Warmed};
use crate::cache::key::{Key, Sought};
use crate::cache::status::{Detail, Forward, Outcome, Status};
use crate::cache::store::StoredResponse;
use crate::clock::Clock;
use crate::drain::{Drain, Readiness};
use crate::origin::{self, AskedRange};
use crate::site::Site;
use crate::telemetry::metrics::Label as _;

/// Where DNS health checks ask whether this node wants traffic.
pub const READY_PATH: &str = "/.well-known/portico/ready";

/// The request path of a node. It lives as long as the node; what a reload changes is in [`Routes`].
#[derive(Debug)]
pub struct Exchange {
    routes: ArcSwap<Routes>,
    cache: Cache,
    forms: recode::Forms,
    blobs: fill::Blobs,
    purge_method: PurgeMethod,
    challenges: Challenges,
    sinks: Arc<Sinks>,
    clock: Clock,
    control: Handle,
    drain: Drain,
    readiness: Readiness,
    patience: Duration,
    content_bytes_max: u64,
    content_stall: Duration,
    ids: AtomicU64,
    nowhere: Arc<str>,
}

/// A request's place: its site and key, under the configuration that it began with.
struct Routed {
    routes: arc_swap::Guard<Arc<Routes>>,
    site: Arc<Site>,
    key: Key,
}

impl Exchange {
    /// Puts the parts together.
    ///
    /// # Errors
    ///
    /// When the thread for better forms cannot be started.
    pub fn start(parts: Parts) -> io::Result<Arc<Self>> {
        let (forms, waiting) = recode::Forms::new();
        let share = parts.recode_share;
        let exchange = Arc::new(Self {
            routes: ArcSwap::from_pointee(parts.routes),
            cache: parts.cache,
            forms,
            blobs: fill::Blobs::default(),
            purge_method: parts.purge_method,
            challenges: parts.challenges,
            sinks: parts.sinks,
            clock: parts.clock,
            control: parts.control,
            drain: parts.drain,
            readiness: parts.readiness,
            patience: parts.patience,
            content_bytes_max: parts.content_bytes_max,
            content_stall: parts.content_stall,
            ids: AtomicU64::new(1),
            nowhere: Arc::from("-"),
        });
        recode::start_bettering(Arc::downgrade(&exchange), waiting, share)?;
        Ok(exchange)
    }

    /// Takes over the sites and origins of a reloaded configuration. Requests under way end as they began.
    pub fn reload(&self, routes: Routes) {
        self.routes.store(Arc::new(routes));
    }

    /// The configuration of the moment.
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
    }

    /// The cache's parts, for the operator's side.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Whether requests for `host` may have content: where they are relayed to an application.
    pub fn takes_content(&self, host: &str) -> bool {
        let routes = self.routes.load();
        let site = routes.router.route(host);
        site.is_some_and(|site| site.settings().relays)
    }

    /// Answers a request: at once, when memory has what it asks for.
    pub fn run(self: &Arc<Self>, request: Request) -> Answering {
        if request.is_early && !message::may_come_twice(&request) {
            return Answering::Now(self.fail(request, None, Failure::TooEarly));
        }
        if request.target.path() == READY_PATH {
            return Answering::Now(self.ready(request));
        }
        let routes = self.routes.load();
        let Some(site) = routes.router.route(&request.host) else {
            return Answering::Now(self.fail(request, None, Failure::Misdirected));
        };
        // RFC 9110 9.3.1: content of a GET has no meaning that a cache could key by.
        if !matches!(request.method, Method::GET | Method::HEAD) || request.content.is_some() {
            let (exchange, site) = (Arc::clone(self), Arc::clone(site));
            return Answering::later(async move { exchange.other_method(request, &site).await });
        }
        let sought = match site.seek(request.target.path(), request.target.query()) {
            Ok(sought) => sought,
            Err(why) => return Answering::Now(self.fail(request, Some(site), Failure::BadPath(why))),
        };
        // Also an early request: what is fetched for it is named by digests, and nothing of it goes to the bucket.
        if site.settings().releases.is_some() {
            let (exchange, site, key) = (Arc::clone(self), Arc::clone(site), sought.to_key());
            let routed = Routed { routes, site, key };
            return Answering::later(async move { exchange.released(request, &routed).await });
        }
        let place = Place {
            rule: site.rule(sought.path()),
            routes: &routes,
            site,
            asks: Asks::of(&request.headers),
            now: request.received,
        };
        let stored = match self.look(&request, place, &sought) {
            Lookup::Fresh(stored) | Lookup::StaleAllowed(stored) => stored,
            found => {
                let key = sought.to_key();
                let (exchange, site) = (Arc::clone(self), Arc::clone(site));
                let routed = Routed { routes, site, key };
                return Answering::later(async move { exchange.proceed(request, routed, found).await });
            }
        };
        if let Some(disk) = self.cache.disk.as_ref().filter(|_| !stored.is_offered()) {
            disk.offer_again(&sought.to_key(), &stored);
        }
        let said = said(&stored, None, place.now);
        let waiting = match self.begin_answer(request, place, Subject::Stored(stored), said) {
            Begun::Done(response) => return Answering::Now(response),
            Begun::Waits(waiting) => waiting,
        };
        let target = &waiting.request.target;
        let key = match site.key(target.path(), target.query()) {
            Ok(key) => key,
            Err(why) => return Answering::Now(self.fail(waiting.request, Some(site), Failure::BadPath(why))),
        };
        let (exchange, site) = (Arc::clone(self), Arc::clone(site));
        let routed = Routed { routes, site, key };
        Answering::later(async move { exchange.go_on(&routed, waiting).await })
    }

    fn look(&self, request: &Request, place: Place<'_>, sought: &Sought<'_>) -> Lookup {
        let Cache { memory, epochs, .. } = &self.cache;
        let heeds = place.site.settings().terms.request_directives;
        lookup::lookup(memory, epochs, sought, (request, place.asks), heeds, place.now)
    }

    /// Answers what memory alone does not.
    async fn proceed(self: &Arc<Self>, request: Request, routed: Routed, mut found: Lookup) -> Response {
        let from_disk = match found.is_nothing() {
            true => self.promote(&routed.key).await,
            false => None,
        };
        if let Some(entry) = &from_disk {
            let place = routed.place(&request, self.clock.now());
            let heeds = place.site.settings().terms.request_directives;
            let (epochs, sought) = (&self.cache.epochs, routed.key.sought());
            found = lookup::choose(entry, epochs, &sought, (&request, place.asks), heeds, place.now);
        }
        let from_disk = from_disk.map(|_| Detail::Disk);
        match found {
            Lookup::Fresh(stored) | Lookup::StaleAllowed(stored) => {
                self.hit(request, &routed, stored, from_disk).await
            }
            Lookup::WhileRevalidating(stored) => {
                if let Some(order) = Order::new(&request, &routed, Some(Arc::clone(&stored)), Vec::new()) {
                    self.revalidate(order);
                }
                self.hit(request, &routed, stored, Some(Detail::StaleWhileRevalidate))
                    .await
            }
            // RFC 8470 5.1: nothing goes to an origin before the handshake is over, so nothing has to say that it does.
            Lookup::Forward { .. } if request.is_early => {
                self.fail(request, Some(&routed.site), Failure::TooEarly)
            }
            Lookup::Forward {
                why,
                stale,
                others,
                part,
            } => {
                let stored = stale.as_ref().map(|stale| Arc::clone(&stale.stored));
                let order = Order::new(&request, &routed, stored, others);
                let Some(order) = order.map(|order| self.narrowed(order, &request, part)) else {
                    return self.fail(request, Some(&routed.site), error::no_origin());
                };
                self.forward(request, &routed, order, why, stale).await
            }
            Lookup::OnlyIfCached => self.fail(request, Some(&routed.site), Failure::OnlyIfCached),
        }
    }

    async fn hit(
        self: &Arc<Self>,
        request: Request,
        routed: &Routed,
        stored: Arc<StoredResponse>,
        detail: Option<Detail>,
    ) -> Response {
        self.asked_again(&routed.key, &stored);
        let Said { status, outcome } = said(&stored, detail, self.clock.now());
        self.respond(request, routed, Subject::Stored(stored), status, outcome)
            .await
    }

    /// The order for less than the whole, where that is enough: for the range that is asked for when nothing is there
    /// and nobody fetches the whole, or for what is missing of the part that is there.
    fn narrowed(&self, mut order: Order, request: &Request, part: Option<Arc<StoredResponse>>) -> Order {
        let is_absent = order.stored.is_none() && order.site.settings().relays;
        if is_absent && !self.cache.flights.contains(&order.key) {
            order.range = partial::forwarded(request);
        }
        order.complete(part.filter(|_| !request.headers.contains_key(RANGE)))
    }

    /// Asks the origin, and answers with what came: a new response, the stored one confirmed, or the stale one after all.
    async fn forward(
        self: &Arc<Self>,
        request: Request,
        routed: &Routed,
        order: Order,
        why: Forward,
        stale: Option<Stale>,
    ) -> Response {
        let asked_back = order.asked_back().next().is_some();
        let came = match order.head || (order.range.is_some() && order.part.is_none()) {
            // Nobody else can be told the same.
            true => fetch::Outcome {
                fetched: self.fetch_alone(order.clone(), &request).await,
                collapsed: false,
            },
            false => self.fetch(order.clone(), &request, stale.as_ref()).await,
        };
        let forwarded = Forwarded {
            why,
            collapsed: came.collapsed,
        };
        match came.fetched {
            // Another exchange had stored it before this one could ask.
            Fetched::Stored(stored) if !asked_back => self.hit(request, routed, stored, None).await,
            Fetched::Stored(stored) => {
                let ttl = stored.head.lifetime.ttl(stored.head.age(self.clock.now()));
                let is_kept = self.cache.memory.find(&routed.key).is_some();
                let status = Status {
                    handling: forwarded.to(Some(304), is_kept, Some(ttl)),
                    detail: None,
                };
                self.respond(
                    request,
                    routed,
                    Subject::Stored(stored),
                    status,
                    Outcome::Revalidated,
                )
                .await
            }
            Fetched::Arriving(arriving) => {
                // With something stale at hand, a new body is sent on once it is known not to break.
                let stands_by = stale.as_ref().is_some_and(|stale| stale.on_error);
                if stands_by && arriving.breaks_within(self.patience).await {
                    return self
                        .fall_back(request, routed, stale, forwarded, &fetch::broken())
                        .await;
                }
                let arriving = match order::of_large(&request, &arriving) {
                    Some((_, first)) if arriving.comes_at(first) => arriving,
                    Some((range, _)) => match self.fetch_range(order, range, &request, arriving).await {
                        Ok(arriving) => arriving,
                        Err(error) => return self.fall_back(request, routed, stale, forwarded, &error).await,
                    },
                    None => arriving,
                };
                self.pass_on(request, routed, arriving, forwarded).await
            }
            Fetched::Failed(error) => self.fall_back(request, routed, stale, forwarded, &error).await,
            Fetched::Slow => {
                self.fall_back(request, routed, stale, forwarded, &fetch::slow())
                    .await
            }
        }
    }

    /// Answers with a new response, while it arrives.
    async fn pass_on(
        self: &Arc<Self>,
        request: Request,
        routed: &Routed,
        arriving: Arc<Arriving>,
        forwarded: Forwarded,
    ) -> Response {
        let stored = arriving.not_stored.is_none();
        let head = &arriving.head;
        let ttl = stored.then(|| head.lifetime.ttl(head.age(self.clock.now())));
        let handling = forwarded.to(Some(head.status.as_u16()), stored, ttl);
        let status = Status {
            handling,
            detail: arriving.not_stored.map(Detail::NotStored),
        };
        let outcome = if forwarded.collapsed {
            Outcome::Collapsed
        } else {
            Outcome::Miss
        };
        self.respond(request, routed, Subject::Arriving(arriving), status, outcome)
            .await
    }

    /// The origin failed: answers with what is stored, stale as it is, or with the failure (RFC 5861 section 4, RFC 9111
    /// section 4.2.4).
    async fn fall_back(
        self: &Arc<Self>,
        request: Request,
        routed: &Routed,
        stale: Option<Stale>,
        forwarded: Forwarded,
        error: &origin::Error,
    ) -> Response {
        let is_silent = error.kind != origin::Kind::OriginStatus5xx;
        let Some(stale) = stale.filter(|stale| stale.on_error || (is_silent && stale.when_silent)) else {
            let mut response = self.fail(request, Some(&routed.site), Failure::from_origin(error));
            let status = Status {
                handling: forwarded.to(None, false, None),
                detail: Some(Detail::OriginFailed(error.kind.token())),
            };
            let status = status.write(&routed.routes.name, None);
            response.headers.insert(&respond::CACHE_STATUS, status);
            return response;
        };
        let detail = Some(Detail::StaleOnError(error.kind.token()));
        let status = Status {
            handling: forwarded.to(None, false, None),
            detail,
        };
        self.respond(
            request,
            routed,
            Subject::Stored(stale.stored),
            status,
            Outcome::StaleError,
        )
        .await
    }

    /// Of a body too large to be kept, only the range that was asked for. The whole, if that fails, or if the range is one of
    /// another version than the one that the client's conditions were weighed against. An error where there is no room for
    /// another body: to read the whole up to the range would take that room for long, and from others.
    async fn fetch_range(
        self: &Arc<Self>,
        mut order: Order,
        range: AskedRange,
        request: &Request,
        whole: Arc<Arriving>,
    ) -> Result<Arc<Arriving>, Arc<origin::Error>> {
        order.range = Some(range);
        match self.fetch_alone(order, request).await {
            Fetched::Arriving(part)
                if part.head.status == StatusCode::PARTIAL_CONTENT && part.head.is_of(&whole.head) =>
            {
                Ok(part)
            }
            Fetched::Failed(error) if error.kind == origin::Kind::ConnectionLimitReached => Err(error),
            _ => Ok(whole),
        }
    }

    fn metrics(&self) -> &Metrics {
        &self.sinks.metrics
    }

    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }
}
