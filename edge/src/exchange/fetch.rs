//! The origin side: collapse, ask, verify, store while streaming; 304 freshens, and a failure is held for a moment.
//!
//! A fetch runs on the control plane and belongs to the collapse table. The exchange that began it waits for its outcome
//! like every other.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;

use super::Exchange;
use super::front::Large;
use super::incoming::Incoming;
use super::intake::{self, Provenance};
use super::lookup::Stale;
use super::message::Request;
use super::order::Order;
use super::partial::{self, Around};
use crate::cache::collapse::{Follower, Landing, Leader};
use crate::cache::inflight::{self, Broken, Joiner, Reader, Writer};
use crate::cache::policy::freshness::Times;
use crate::cache::policy::storability::NotStored;
use crate::cache::store::{Head, Reservation, StoredResponse};
use crate::origin::{self, Answer};

/// How long a failure is remembered, so that a broken origin is not asked once per request.
const FAILURE_HELD: Duration = Duration::from_millis(500);

/// A response whose body is still on its way.
#[derive(Debug)]
pub struct Arriving {
    /// Everything but the body.
    pub head: Arc<Head>,
    /// The body's length, when it is known.
    pub length: Option<u64>,
    /// Why it will not be stored, if it will not.
    pub not_stored: Option<NotStored>,
    pub(super) joiner: Joiner,
    /// The only reader of a body that is not kept.
    pub(super) own: Mutex<Option<Reader>>,
    /// Where a body goes that is too large for memory.
    pub(super) large: Option<Large>,
}

impl Arriving {
    /// A response of which only the head was asked for; its body would have `length` bytes.
    pub(super) fn bodiless(head: Head, length: Option<u64>, why: NotStored) -> Self {
        let (writer, joiner) = inflight::open(Some(0), None);
        writer.finish();
        Self {
            head: Arc::new(head),
            length,
            not_stored: Some(why),
            joiner,
            own: Mutex::default(),
            large: None,
        }
    }

    /// A reader at the body's start; `None` when that is gone, and when there is no `room` to read it from the disk, if it
    /// goes there.
    pub fn reader(&self, room: Option<Reservation>) -> Option<Reader> {
        if let Some(large) = &self.large {
            return Some(large.reader(room?));
        }
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).take();
        own.or_else(|| self.joiner.join())
    }

    /// Whether the body turns out broken within `patience`. Only a body that is kept anyway is waited for.
    pub async fn breaks_within(&self, patience: Duration) -> bool {
        if self.not_stored.is_some() || self.length.is_none() || self.large.is_some() {
            return false;
        }
        let Some(mut reader) = self.joiner.join() else {
            return false;
        };
        let broken = async {
            while let Some(chunk) = reader.chunk().await {
                if chunk.is_err() {
                    return true;
                }
            }
            false
        };
        tokio::time::timeout(patience, broken).await.unwrap_or(false)
    }
}

pub(super) type Flights =
    crate::cache::collapse::Collapse<Arc<Arriving>, Arc<StoredResponse>, Arc<origin::Error>>;
pub(super) type Following = Follower<Arc<Arriving>, Arc<StoredResponse>, Arc<origin::Error>>;
pub(super) type Leading = Leader<Arc<Arriving>, Arc<StoredResponse>, Arc<origin::Error>>;

/// What a fetch came to.
#[derive(Debug)]
pub enum Fetched {
    /// The body is on its way.
    Arriving(Arc<Arriving>),
    /// It is stored: confirmed by the origin, or fetched by somebody else meanwhile.
    Stored(Arc<StoredResponse>),
    /// The origin failed.
    Failed(Arc<origin::Error>),
    /// The origin takes its time, and there is something stale to serve.
    Slow,
}

/// A fetch's outcome, and whether another exchange's fetch brought it (RFC 9211 2.8).
#[derive(Debug)]
pub struct Outcome {
    /// What came of it.
    pub fetched: Fetched,
    /// Whether this exchange did not begin the fetch itself.
    pub collapsed: bool,
}

impl Exchange {
    /// Asks the origin through the collapse table, and waits for the outcome: as long as the origin may take, or only
    /// `patience` when something stale stands by. Where one has waited in vain already, those after it do not wait.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        order: Order,
        request: &Request,
        stale: Option<&Stale>,
    ) -> Outcome {
        let mut following = self.begin(order.clone());
        let collapsed = !following.is_first();
        let patience = if following.is_slow() {
            Duration::ZERO
        } else {
            self.patience
        };
        let patience = stale.filter(|stale| stale.on_error).map(|_| patience);
        let landing = match patience {
            None => following.land().await,
            Some(patience) => match tokio::time::timeout(patience, following.land()).await {
                Ok(landing) => landing,
                Err(_) => {
                    following.lose_patience();
                    return Outcome {
                        fetched: Fetched::Slow,
                        collapsed,
                    };
                }
            },
        };
        match settle(landing, request) {
            Some(fetched) => Outcome { fetched, collapsed },
            None => Outcome {
                fetched: self.fetch_alone(order, request).await,
                collapsed: false,
            },
        }
    }

    /// Asks the origin for this exchange only.
    pub(super) async fn fetch_alone(self: &Arc<Self>, order: Order, request: &Request) -> Fetched {
        let (mut following, leader) = self.cache.flights.alone(&order.key, self.cache.epochs.now());
        self.launch(order, leader);
        match following.land().await {
            Landing::Arriving(arriving) | Landing::Own(arriving) => Fetched::Arriving(arriving),
            Landing::Stored(stored) => settle(Landing::Stored(stored), request).unwrap_or_else(abandoned),
            Landing::Failed(error) => Fetched::Failed(error),
            Landing::Alone => abandoned(),
        }
    }

    /// Joins the flight for the order's key, or launches it.
    pub(super) fn begin(self: &Arc<Self>, order: Order) -> Following {
        let (following, leader) = self.cache.flights.enter(&order.key, self.cache.epochs.now());
        if let Some(leader) = leader {
            match self.stored_meanwhile(&order, &leader) {
                Some(stored) => leader.stored(stored),
                None => self.launch(order, leader),
            }
        }
        following
    }

    /// What another fetch stored between a lookup that found nothing and the entry into the table.
    fn stored_meanwhile(&self, order: &Order, leader: &Leading) -> Option<Arc<StoredResponse>> {
        if order.stored.is_some() {
            return None;
        }
        let now = self.clock.now();
        let entry = self.cache.memory.find(&order.key)?;
        let serves = |stored: &&Arc<StoredResponse>| {
            let head = &stored.head;
            head.part.is_none()
                && head.position >= leader.position
                && head.lifetime.is_fresh(head.age(now))
                && !head.lifetime.no_cache
                && head.suits(&order.headers)
        };
        entry.variants().iter().find(serves).cloned()
    }

    fn launch(self: &Arc<Self>, order: Order, leader: Leading) {
        let exchange = Arc::clone(self);
        self.drain.spawn_on(&self.control, "fetch", async move {
            exchange.lead(order, leader).await;
        });
    }

    async fn lead(self: &Arc<Self>, order: Order, leader: Leading) {
        let asked = self.clock.now();
        let answer = order.origin.fetch(order.ask()).await;
        let times = Times {
            request: asked,
            response: self.clock.now(),
        };
        match answer {
            Err(error) => self.hold_failure(leader, error).await,
            Ok(answer) if answer.status == StatusCode::NOT_MODIFIED => {
                match self.confirm(&order, &answer, times, leader.position) {
                    Some(stored) => leader.stored(stored),
                    None => self.lead_anew(order, leader).await,
                }
            }
            Ok(answer) => match self.failure_in(&order, &answer) {
                Some(error) => {
                    // Its connection is for others while the failure is held.
                    drop(answer);
                    self.hold_failure(leader, error).await;
                }
                None if order.head => self.receive_head(&order, answer, times, leader),
                None => match partial::completed(order, answer) {
                    Ok((order, answer, around)) => self.receive(order, answer, around, times, leader).await,
                    Err(order) => Box::pin(self.lead(*order, leader)).await,
                },
            },
        }
    }

    /// Asks again, without conditions: what came was about none of the stored responses (RFC 9111 section 4.3.4).
    async fn lead_anew(self: &Arc<Self>, mut order: Order, leader: Leading) {
        if order.asked_back().next().is_none() {
            let unasked = origin::Error::new(origin::Kind::HttpProtocolError, "a 304 that nobody asked for");
            return self.hold_failure(leader, unasked).await;
        }
        order.stored = None;
        order.others = Vec::new();
        Box::pin(self.lead(order, leader)).await;
    }

    /// Tells of a failure, and keeps the flight for a moment, so that those who come next learn of it too.
    async fn hold_failure(&self, mut leader: Leading, error: origin::Error) {
        leader.failed(Arc::new(error));
        tokio::select! {
            () = tokio::time::sleep(FAILURE_HELD) => {}
            () = self.drain.begun() => {}
        }
    }

    /// Takes a new response in: announces its head, then passes its body on, and stores it when it came whole.
    async fn receive(
        self: &Arc<Self>,
        order: Order,
        answer: Answer,
        around: Around,
        times: Times,
        mut leader: Leading,
    ) {
        let Answer {
            status,
            headers,
            length,
            body,
            source,
        } = answer;
        let from = Provenance {
            id: self.next_id(),
            source,
            times,
            position: leader.position,
        };
        // What is not kept is not held up to learn its length.
        let is_kept = length.is_some()
            || intake::judge(&order, status, &headers, None, from.clone())
                .verdict
                .is_ok();
        let (mut body, length) = match Incoming::open(body, length, is_kept, &self.cache.budget).await {
            Ok(opened) => opened,
            Err(error) => return self.hold_failure(leader, error).await,
        };
        let length = length.map(|length| length.saturating_add(around.len()));
        let judged = intake::judge(&order, status, &headers, length, from);
        let head = Arc::new(judged.head);
        let allowance = judged.verdict.and_then(|()| self.allowance(length));
        let is_large = judged.verdict.is_ok() && allowance.is_err() && around.len() == 0;
        if is_large && let Some(fill) = self.room_on_disk(&head, length, body.ahead_bytes()).await {
            return self.take_to_disk(order, head, (body, length), fill, leader).await;
        }
        let not_stored = allowance.as_ref().err().copied();
        if let Some(why) = not_stored {
            self.metrics().not_stored.inc(why);
        }
        let Some((mut writer, joiner)) = self.open(length, allowance.ok(), body.ahead_bytes()).await else {
            drop(body);
            return self.hold_failure(leader, over_budget()).await;
        };
        let own = not_stored.and_then(|_| joiner.join());
        let arriving = Arc::new(Arriving {
            head: Arc::clone(&head),
            length,
            not_stored,
            joiner,
            own: Mutex::new(own),
            large: None,
        });
        if not_stored.is_some() {
            if leader.own(arriving) {
                match pump(&mut body, around, &mut writer).await {
                    Ok(()) => writer.finish(),
                    Err(why) => writer.fail(why),
                }
            }
            return;
        }
        if length == Some(0) {
            // There is nothing to wait for: it is stored before anybody is told.
            self.keep(&order, &head, &leader, writer);
            leader.arriving(arriving);
            return;
        }
        // The leader of a kept body stays in the table until the body is stored, so that nobody asks for it again.
        leader.arriving(arriving);
        match pump(&mut body, around, &mut writer).await {
            Ok(()) => self.keep(&order, &head, &leader, writer),
            Err(why) => {
                leader.leave();
                writer.fail(why);
            }
        }
    }

    /// Opens a body that is kept within `allowance`, or else streams past; `None` when there is no room even for that.
    async fn open(
        &self,
        length: Option<u64>,
        allowance: Option<Reservation>,
        ahead: u64,
    ) -> Option<(Writer, Joiner)> {
        if allowance.is_some() {
            return Some(inflight::open(length, allowance));
        }
        let budget = &self.cache.budget;
        let room = budget.stream_soon(length, ahead).await;
        if room.is_none() {
            self.metrics().no_room.inc();
        }
        Some(inflight::past(length, room?))
    }

    /// What may be kept of a body of this length, or why nothing.
    fn allowance(&self, length: Option<u64>) -> Result<Reservation, NotStored> {
        let length = length
            .filter(|length| *length <= self.cache.object_bytes_max)
            .ok_or(NotStored::TooLarge)?;
        self.cache.budget.arriving(length).ok_or(NotStored::OverBudget)
    }

    /// Stores a body that has come, if it is all there, and then ends it for those who follow it: whoever sees its end
    /// finds it stored, and no flight to join.
    fn keep(&self, order: &Order, head: &Arc<Head>, leader: &Leading, writer: Writer) {
        let whole = writer.whole();
        if let Ok(Some(whole)) = &whole {
            let head = &intake::for_all(head);
            let stored = self.kept(order, head, whole.clone());
            let stored = Arc::new(stored);
            self.cache.memory.insert(&order.key, Arc::clone(&stored));
            self.store_on_disk(&order.key, &stored);
            self.metrics().stored.inc();
        }
        leader.leave();
        match whole {
            Ok(_) => writer.finish(),
            Err(why) => writer.fail(why),
        }
    }
}

/// Passes a body on until its end, with what stands around it; ends early when nobody wants it any more.
async fn pump(body: &mut Incoming, around: Around, writer: &mut Writer) -> Result<(), Broken> {
    if !writer.write(around.before).await && writer.written() > 0 {
        return Err(Broken::Abandoned);
    }
    while let Some(chunk) = body.chunk().await {
        let chunk = chunk.map_err(|error| {
            tracing::warn!(%error, written = writer.written(), "the origin's body broke");
            Broken::Origin
        })?;
        if !writer.write(chunk).await {
            return Err(Broken::Abandoned);
        }
    }
    writer.write(around.behind).await;
    Ok(())
}

/// What a landing means for `request`; `None` when it must fetch alone.
fn settle(
    landing: Landing<Arc<Arriving>, Arc<StoredResponse>, Arc<origin::Error>>,
    request: &Request,
) -> Option<Fetched> {
    let suits = |head: &Head| head.suits(&request.headers);
    match landing {
        Landing::Arriving(arriving) => suits(&arriving.head).then_some(Fetched::Arriving(arriving)),
        Landing::Own(arriving) => Some(Fetched::Arriving(arriving)),
        Landing::Stored(stored) => suits(&stored.head).then_some(Fetched::Stored(stored)),
        Landing::Failed(error) => Some(Fetched::Failed(error)),
        Landing::Alone => None,
    }
}

/// What is said of a new body that broke while something stale is served.
pub(super) fn broken() -> origin::Error {
    origin::Error::new(origin::error::Kind::HttpResponseIncomplete, "the body broke")
}

/// What is said when the memory cap has no room left for another body on its way: to be asked again in a second.
pub(super) fn over_budget() -> origin::Error {
    origin::Error::new(
        origin::error::Kind::ConnectionLimitReached,
        "bodies on their way take all the memory there is for them",
    )
}

/// What is said of an origin that takes its time while something stale is served.
pub(super) fn slow() -> origin::Error {
    origin::Error::new(
        origin::error::Kind::HttpResponseTimeout,
        "the origin takes its time",
    )
}

fn abandoned() -> Fetched {
    Fetched::Failed(Arc::new(origin::Error::new(
        origin::error::Kind::ProxyInternalError,
        "the fetch was given up",
    )))
}
