//! Blobs of releases: from memory, from the disk, or from a bucket; hashed before they are seen, and then kept like
//! everything else.
//!
//! They are kept under keys that no request can name, by digest. So a file that two versions share is kept once, and
//! nothing that came by another way can stand under such a key.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use origin_sync::release::{CodingName, File, Sha256};

use super::{Exchange, intake};
use crate::cache::collapse::{Collapse, Landing, Leader};
use crate::cache::epoch::{Position, Standing};
use crate::cache::key::Key;
use crate::cache::policy::freshness::{Lifetime, Source};
use crate::cache::store::{Budget, Content, Disk, Head, StoredResponse};
use crate::cache::tag::Tag;
use crate::origin::{Error, Kind};
use crate::release::file::Found;
use crate::release::wants::{self, Wants};
use crate::release::{Checked, Rejected, delta};
use crate::representation::coding::Coding;

/// Blobs that are on their way, by key.
pub(super) type Blobs = Collapse<(), Filled, Arc<Error>>;

/// A blob, and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Filled {
    /// What is stored now.
    pub(super) stored: Arc<StoredResponse>,
    /// How it came there.
    pub(super) how: How,
}

/// How a blob was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// With another request's fetch.
    Collapsed,
    /// Out of the disk tier.
    Disk,
    /// From a bucket.
    Fetched,
    /// It was in memory, or was made of what was.
    Memory,
}

/// How long a failure answers for those who ask next.
const FAILURE_HELD: Duration = Duration::from_millis(500);

/// How often a flight is joined anew that ended without a word.
const TRIES: usize = 3;

impl Exchange {
    /// The bytes of a form.
    pub(super) async fn blob(
        self: &Arc<Self>,
        found: &Found,
        form: &wants::Form,
    ) -> Result<(Bytes, How), Arc<Error>> {
        let key = key(found, &format!("sha256/{}", form.sha256));
        if let Some(bytes) = self.at_hand(&key) {
            return Ok((bytes, How::Memory));
        }
        for _ in 0..TRIES {
            let (mut following, leader) = self.blobs.enter(&key, self.cache.epochs.now());
            let is_first = following.is_first();
            if let Some(leader) = leader {
                let (exchange, found, form, key) =
                    (Arc::clone(self), found.clone(), form.clone(), key.clone());
                self.drain.spawn_on(&self.control, "blob", async move {
                    exchange.fill(&found, &form, &key, leader).await;
                });
            }
            match following.land().await {
                Landing::Stored(filled) => {
                    let how = match filled.how {
                        How::Fetched if !is_first => How::Collapsed,
                        how => how,
                    };
                    return Ok((bytes_of(&filled.stored), how));
                }
                Landing::Failed(error) => return Err(error),
                Landing::Alone | Landing::Arriving(()) | Landing::Own(()) => {}
            }
        }
        let given_up = Error::new(Kind::ProxyInternalError, "the fetch was given up");
        Err(Arc::new(given_up))
    }

    /// The bytes of a form, if they are in memory or on the disk.
    pub(super) async fn blob_at_hand(self: &Arc<Self>, found: &Found, form: &wants::Form) -> Option<Bytes> {
        let key = key(found, &format!("sha256/{}", form.sha256));
        if let Some(bytes) = self.at_hand(&key) {
            return Some(bytes);
        }
        let restored = self.restore_blob(found, form, &key).await?;
        Some(bytes_of(&restored))
    }

    fn at_hand(&self, key: &Key) -> Option<Bytes> {
        let entry = self.cache.memory.find(key)?;
        let stored = entry.variants().first()?;
        let standing = super::lookup::standing(&self.cache.epochs, key, stored);
        if standing == Standing::Purged {
            return None;
        }
        self.asked_again(key, stored);
        stored.own_form()?.body.in_memory().cloned()
    }

    async fn fill(
        self: &Arc<Self>,
        found: &Found,
        form: &wants::Form,
        key: &Key,
        leader: Leader<(), Filled, Arc<Error>>,
    ) {
        if let Some(stored) = self.restore_blob(found, form, key).await {
            return leader.stored(Filled {
                stored,
                how: How::Disk,
            });
        }
        let fetched = match form.size <= self.cache.object_bytes_max {
            false => Err(Error::new(
                Kind::ConnectionLimitReached,
                format!("{} bytes are more than cache.object_max", form.size),
            )),
            true => match self.cache.budget.reserve(form.size, form.size) {
                None => Err(Error::new(
                    Kind::ConnectionLimitReached,
                    "no room for bodies in flight",
                )),
                Some(room) => {
                    let blob = found.track.blob(&form.sha256, form.size).await;
                    // They count for as long as anybody holds them.
                    blob.map(|Checked { bytes, .. }| room.hold(bytes.into()))
                }
            },
        };
        match fetched {
            Ok(bytes) => {
                let stored = Arc::new(self.as_stored(bytes, found.tags(), leader.position));
                self.cache.memory.insert(key, Arc::clone(&stored));
                self.store_on_disk(key, &stored);
                self.metrics().stored.inc();
                leader.stored(Filled {
                    stored,
                    how: How::Fetched,
                });
            }
            Err(error) => {
                tracing::warn!(
                    release = %found.track.name(), path = %found.file.path, blob = %form.sha256, %error,
                    "a file of a release cannot be had"
                );
                let mut leader = leader;
                leader.failed(Arc::new(error));
                tokio::select! {
                    () = tokio::time::sleep(FAILURE_HELD) => {}
                    () = self.drain.begun() => {}
                }
            }
        }
    }

    /// A blob that the disk tier has, if it is still what its digest says.
    async fn restore_blob(
        &self,
        found: &Found,
        form: &wants::Form,
        key: &Key,
    ) -> Option<Arc<StoredResponse>> {
        let disk = self.cache.disk.as_ref().filter(|disk| disk.has(key))?;
        for loaded in disk.load(key).await {
            let (head, body) = (&loaded.head, loaded.forms.into_iter().next());
            let standing = self.cache.epochs.judge(key, &head.tags, head.position);
            let Some((_, body)) = body.filter(|_| standing != Standing::Purged) else {
                continue;
            };
            let Some(bytes) = whole(body, form.size, &self.cache.budget).await else {
                continue;
            };
            if Sha256::of(&bytes) == form.sha256 {
                let stored = self.as_stored(bytes, found.tags(), head.position);
                stored.set_offered(true);
                let stored = Arc::new(stored);
                self.cache.memory.restore(key, Arc::clone(&stored));
                return Some(stored);
            }
            self.reject_from_disk(found, disk, key);
        }
        None
    }

    fn reject_from_disk(&self, found: &Found, disk: &Disk, key: &Key) {
        tracing::error!(key = key.as_str(), path = %found.file.path, "the disk has other bytes than were kept");
        self.routes().releases.metrics().rejections.inc(Rejected::Disk);
        disk.remove(key);
    }

    /// A delta that no release brought, from what the client holds to `found`; none where it is not worth it, or takes too
    /// long. It is made once.
    pub(super) async fn delta(
        self: &Arc<Self>,
        found: &Found,
        wants: &Wants,
    ) -> Option<(wants::Form, Bytes)> {
        let held = wants.dictionary.filter(|held| *held != found.file.sha256)?;
        let is_text = !found.file.codings.is_empty();
        let is_brought = found.file.coding(CodingName::Dcb, Some(&held)).is_some();
        if !is_text || is_brought || found.file.size > delta::BYTES_MAX {
            return None;
        }
        // Only what was released is known here: no other digest gets any further.
        let holder = found.track.holder(found.file.path.as_str(), &held)?;
        if holder.size > delta::BYTES_MAX {
            return None;
        }
        let key = key(found, &format!("dcb/{}/{held}", found.file.sha256));
        let bytes = match self.at_hand(&key) {
            Some(bytes) => bytes,
            None => {
                let (mut following, leader) = self.blobs.enter(&key, self.cache.epochs.now());
                if let Some(leader) = leader {
                    let (exchange, found, key) = (Arc::clone(self), found.clone(), key.clone());
                    self.drain.spawn_on(&self.control, "delta", async move {
                        exchange.make_delta(&found, holder, &key, leader).await;
                    });
                }
                let landing = tokio::time::timeout(self.patience, following.land()).await;
                match landing {
                    Ok(Landing::Stored(filled)) => bytes_of(&filled.stored),
                    Ok(_) | Err(_) => return None,
                }
            }
        };
        let form = wants::Form {
            coding: Some(CodingName::Dcb),
            sha256: Sha256::of(&bytes),
            size: bytes.len() as u64,
        };
        // Nothing stands for a delta that was not worth it.
        (!bytes.is_empty()).then_some((form, bytes))
    }

    async fn make_delta(
        self: &Arc<Self>,
        found: &Found,
        holder: Arc<File>,
        key: &Key,
        leader: Leader<(), Filled, Arc<Error>>,
    ) {
        let old = Found {
            file: holder,
            ..found.clone()
        };
        let blobs = (
            self.blob(found, &wants::Form::own(&found.file)).await,
            self.blob(&old, &wants::Form::own(&old.file)).await,
        );
        // Those who wait for it are given another form.
        let (Ok((new, _)), Ok((old, _))) = blobs else {
            return;
        };
        let smallest = found.file.codings.iter().map(|coding| coding.size).min();
        let otherwise = smallest.unwrap_or(found.file.size).min(found.file.size);
        let Some(_permit) = self.coder().await else {
            return;
        };
        let made = tokio::task::spawn_blocking(move || delta::make(&new, &old, otherwise)).await;
        let Ok(made) = made else {
            return;
        };
        if made.is_some() {
            self.routes().releases.metrics().deltas_made.inc();
        }
        let stored = self.as_stored(made.unwrap_or_default(), found.tags(), leader.position);
        // It is not worth a place on the disk.
        stored.set_offered(true);
        let stored = Arc::new(stored);
        self.cache.memory.insert(key, Arc::clone(&stored));
        leader.stored(Filled {
            stored,
            how: How::Memory,
        });
    }

    fn as_stored(&self, bytes: Bytes, tags: Box<[Tag]>, position: Position) -> StoredResponse {
        let head = Head {
            id: self.next_id(),
            status: StatusCode::OK,
            fields: HeaderMap::new(),
            origin_fields: HeaderMap::new(),
            // Whichever bucket it came from, it is the same.
            source: Arc::from("release"),
            vary: None,
            lifetime: FOR_EVER,
            response_time: self.clock.now(),
            initial_age: Duration::ZERO,
            position,
            tags,
            coding: Coding::Identity,
            etag: None,
            last_modified: None,
            codable: false,
            part: None,
            withheld: HeaderMap::new(),
        };
        let own = intake::own_form(&head, bytes);
        StoredResponse::new(Arc::new(head), own)
    }
}

/// What is named by its digest does not change.
const FOR_EVER: Lifetime = Lifetime {
    fresh: Duration::from_secs(10 * 365 * 86_400),
    stale_while_revalidate: Duration::ZERO,
    stale_if_error: Duration::ZERO,
    must_revalidate: false,
    no_cache: false,
    source: Source::Rule,
};

/// A key that is no path: those begin with a slash.
fn key(found: &Found, what: &str) -> Key {
    Key::new(found.track.origin_name(), found.track.site(), what, None)
}

fn bytes_of(stored: &StoredResponse) -> Bytes {
    let own = stored.own_form().and_then(|form| form.body.in_memory());
    own.cloned().unwrap_or_default()
}

/// All of a body that the disk gave, if it has this length.
async fn whole(body: Content, size: u64, budget: &Budget) -> Option<Bytes> {
    let on_disk = match body {
        Content::Memory(bytes) => return Some(bytes),
        Content::Disk(on_disk) => on_disk,
    };
    let room = budget.keep(size, size)?;
    let mut bytes = Vec::new();
    let mut reader = on_disk.reader();
    while let Some(chunk) = reader.read(bytes.len() as u64).await.ok()? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > size {
            return None;
        }
    }
    Some(room.hold(bytes))
}
