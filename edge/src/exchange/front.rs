//! Large bodies that come at several places at once: a range far into a cold body does not wait for all before it, and no byte
//! is fetched twice, whoever asks for what.
//!
//! The fetch of the whole goes on from the beginning. Who asks for a byte far ahead of it has the body come there too, by a
//! range request of its own up to where it comes already; and whatever comes ends where the next place began. All of it goes
//! into the one file, of one version only: the one whose strong entity tag the first answer had.

use std::sync::Arc;

use http::header::{CONTENT_RANGE, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::Exchange;
use super::tier::{FILL_BYTES, is_strong};
use crate::cache::inflight::{Broken, Reader};
use crate::cache::key::Key;
use crate::cache::store::disk::{FAR_BYTES, Front, Places, Taken};
use crate::cache::store::{Head, OnDisk, Reservation};
use crate::origin::{Answer, Ask, AskedRange};

/// A body on its way to the disk, for those who read it meanwhile.
#[derive(Debug)]
pub(super) struct Large {
    pub(super) exchange: Arc<Exchange>,
    pub(super) key: Key,
    pub(super) head: Arc<Head>,
    pub(super) body: OnDisk,
    pub(super) places: Places,
    /// What its connection holds ready.
    pub(super) ahead: u64,
}

impl Large {
    /// A reader of it, with the room for that.
    pub(super) fn reader(&self, room: Reservation) -> Reader {
        self.exchange
            .read_from_disk(&self.key, &self.head, "", &self.body, room)
    }

    /// Whether the byte at `first` is far from what has come.
    pub(super) fn is_far(&self, first: u64) -> bool {
        !self.body.is_near(first, FAR_BYTES)
    }

    /// How the rest of it is asked for.
    pub(super) fn taken_up(&self) -> TakenUp {
        TakenUp {
            exchange: Arc::clone(&self.exchange),
            key: self.key.clone(),
            head: Arc::clone(&self.head),
        }
    }

    /// Has it come at the byte `first` too. `false` when there is no room for that.
    pub(super) fn comes_at(&self, first: u64) -> bool {
        let bytes = FILL_BYTES + self.ahead;
        let Some(room) = self.exchange.cache.budget.reserve(bytes, bytes) else {
            return false;
        };
        let Some(front) = self.places.begin(first) else {
            // Somebody else may have been faster.
            return !self.is_far(first);
        };
        let (drain, control) = (&self.exchange.drain, &self.exchange.control);
        drain.spawn_on(control, "front", self.taken_up().bring(front, room));
        true
    }
}

/// A body whose beginning is known, and whose rest is asked for.
#[derive(Debug)]
pub(super) struct TakenUp {
    pub(super) exchange: Arc<Exchange>,
    pub(super) key: Key,
    pub(super) head: Arc<Head>,
}

impl TakenUp {
    /// Brings the body from where `front` begins, up to where it comes already, or to its end. What goes wrong with it is made
    /// good by the fetch of the whole.
    async fn bring(self, mut front: Front, _room: Reservation) {
        let Ok((answer, 0)) = self.ask(front.first(), front.limit()).await else {
            return;
        };
        let mut body = answer.body;
        while let Some(chunk) = body.chunk().await {
            let Ok(chunk) = chunk else {
                return;
            };
            if front.write(chunk).await != Taken::On {
                return;
            }
        }
        front.close().await;
    }

    /// Asks the origin for the bytes from `first` up to `end`, if it still has the same (RFC 9110 section 13.1.5: a strong
    /// entity tag names the very bytes). How many bytes come before those.
    pub(super) async fn ask(&self, first: u64, end: Option<u64>) -> Result<(Answer, u64), Broken> {
        let routes = self.exchange.routes();
        let origin = routes.origins.find(self.key.origin());
        let origin = origin
            .filter(|_| is_strong(self.head.etag.as_ref()))
            .ok_or(Broken::Disk)?;
        let ask = Ask {
            path: self.key.path().to_owned(),
            query: self.key.query().map(str::to_owned),
            site: self.key.host().to_owned(),
            fields: self.varied(),
            range: Some(AskedRange::From {
                first,
                last: end.map(|end| end.saturating_sub(1)),
            }),
            ..Ask::default()
        };
        let answer = origin.fetch(ask).await.map_err(|error| {
            tracing::warn!(key = self.key.as_str(), %error, "a body could not be taken up from the origin");
            Broken::Disk
        })?;
        if answer.headers.get(ETAG) != self.head.etag.as_ref() {
            return Err(Broken::Disk);
        }
        match answer.status {
            StatusCode::PARTIAL_CONTENT if is_whole(&answer, first, end) => Ok((answer, 0)),
            StatusCode::OK => Ok((answer, first)),
            _ => Err(Broken::Disk),
        }
    }

    /// The fields of the request that the response was chosen by.
    fn varied(&self) -> HeaderMap {
        let fields = self.head.vary.iter().flat_map(|vary| vary.fields());
        let known = fields.filter_map(|(name, value)| {
            let value = HeaderValue::from_bytes(value?).ok()?;
            Some((name.clone(), value))
        });
        known.collect()
    }
}

/// Whether a part is the one that was asked for: from `first` up to `end`, or to the end of all; and says so itself, so that
/// one which is cut is known for that.
fn is_whole(answer: &Answer, first: u64, end: Option<u64>) -> bool {
    let value = answer.headers.get(CONTENT_RANGE);
    let said = value.and_then(|value| value.to_str().ok()?.strip_prefix("bytes ")?.split_once('/'));
    let Some((place, total)) = said else {
        return false;
    };
    let Some(end) = end.or_else(|| total.parse().ok()) else {
        return false;
    };
    place == format!("{first}-{}", end.saturating_sub(1)) && answer.length == end.checked_sub(first)
}
