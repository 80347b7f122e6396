//! The request path and the disk tier: what goes there, what comes back, and a stored body that cannot be read on.
//!
//! What is found on disk is put into memory, with its bytes when they are few, else with the place where they are; and then
//! it is looked up again, by the same law as everything. A body that streams from the disk and turns out damaged is taken
//! up from the origin at that byte, if that has the same one still; else the answer ends broken, never cleanly.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::fetch::{Arriving, Leading};
use super::front::{Large, TakenUp};
use super::incoming::Incoming;
use super::order::Order;
use super::{Exchange, intake};
use crate::cache::collapse::{Collapse, Landing};
use crate::cache::epoch::Standing;
use crate::cache::inflight::{self, Broken, Reader, Writer};
use crate::cache::key::Key;
use crate::cache::store::disk::{Fill, Loaded, Rest, Taken, Unreadable};
use crate::cache::store::{Content, Disk, Entry, Form, Head, OnDisk, Reservation, StoredResponse};
use crate::origin::s3::Proof;

/// What is on its way from the disk to memory, by key: it is read once, however many ask.
pub type Promotions = Collapse<(), Option<Entry>, ()>;

/// What a body on its way to the disk takes of the memory besides what its connection holds: a batch that is gathered, one that
/// is written, and its chunks with their checksums.
pub(super) const FILL_BYTES: u64 = 768 * 1024;

/// What a body that is read from the disk holds ready: two pieces of 128 KiB, one read and one being read.
const READ_AHEAD_BYTES: u64 = 256 * 1024;

impl Exchange {
    /// Gives a response that has just been stored, or confirmed, to the disk.
    pub(super) fn store_on_disk(&self, key: &Key, stored: &Arc<StoredResponse>) {
        if let Some(disk) = &self.cache.disk {
            disk.offer(key, stored);
        }
    }

    /// Gives the response with the head `id` to the disk as it is now, with all its forms.
    pub(super) fn keep_on_disk(&self, key: &Key, id: u64) {
        let Some(entry) = self.cache.disk.as_ref().and_then(|_| self.cache.memory.find(key)) else {
            return;
        };
        if let Some(stored) = entry.variants().iter().find(|stored| stored.head.id == id) {
            self.store_on_disk(key, stored);
        }
    }

    /// Notes that a stored response was asked for again: if the disk has not been given it yet, now it is.
    pub(super) fn asked_again(&self, key: &Key, stored: &Arc<StoredResponse>) {
        if let Some(disk) = &self.cache.disk {
            disk.offer_again(key, stored);
        }
    }

    /// Brings what the disk has under `key` into memory, and gives it. `None` when it has nothing that may be used.
    pub(super) async fn promote(self: &Arc<Self>, key: &Key) -> Option<Entry> {
        let disk = self.cache.disk.as_ref()?;
        if let Some(loaded) = disk.at_hand(key) {
            return self.restore(disk, key, vec![loaded]);
        }
        if !disk.has(key) {
            return None;
        }
        let (mut following, leader) = self.cache.promotions.enter(key, self.cache.epochs.now());
        if let Some(leader) = leader {
            let (exchange, disk, key) = (Arc::clone(self), disk.clone(), key.clone());
            self.drain.spawn_on(&self.control, "promotion", async move {
                let loaded = disk.load(&key).await;
                leader.stored(exchange.restore(&disk, &key, loaded));
            });
        }
        match following.land().await {
            Landing::Stored(restored) => restored,
            _ => None,
        }
    }

    /// Puts what was found on the disk into memory, without what was purged.
    fn restore(&self, disk: &Disk, key: &Key, loaded: Vec<Loaded>) -> Option<Entry> {
        let mut restored = Vec::new();
        for loaded in loaded {
            let standing = self
                .cache
                .epochs
                .judge(key, &loaded.head.tags, loaded.head.position);
            if standing == Standing::Purged {
                continue;
            }
            let stored = Arc::new(self.revive(loaded));
            self.cache.memory.restore(key, Arc::clone(&stored));
            restored.push(stored);
        }
        if restored.is_empty() {
            return None;
        }
        // What was removed while it was read must not stay in memory.
        if !disk.has(key) {
            self.cache.memory.remove(key);
            return None;
        }
        // Memory keeps what is asked for often, and may not have taken it: it is served all the same.
        let held = self.cache.memory.find(key);
        Some(held.unwrap_or_else(|| Entry::new(restored)))
    }

    /// What was found on the disk, as it would stand in memory.
    pub(super) fn revive(&self, loaded: Loaded) -> StoredResponse {
        let mut head = loaded.head;
        head.id = self.next_id();
        let head = Arc::new(head);
        let form = |(at, body): (_, Content)| {
            let at: crate::cache::store::disk::FormAt = at;
            let mut form: Form = intake::form(&head, at.coding, at.suffix, body);
            form.improvable = at.improvable;
            Arc::new(form)
        };
        let forms = loaded.forms.into_iter().map(form).collect();
        let stored = StoredResponse::with_forms(head, forms);
        stored.set_offered(true);
        stored
    }

    /// Room to read a body of `length` bytes from the disk, if that is known; `None` when there is none at the moment.
    pub(super) fn room_to_read(&self, length: Option<u64>) -> Option<Reservation> {
        self.cache.budget.stream(length, READ_AHEAD_BYTES)
    }

    /// As [`Exchange::room_to_read`], and waits for its turn.
    pub(super) async fn room_to_read_soon(&self, length: Option<u64>) -> Option<Reservation> {
        let room = self.cache.budget.stream_soon(length, READ_AHEAD_BYTES).await;
        if room.is_none() {
            self.metrics().no_room.inc();
        }
        room
    }

    /// A reader of a body on the disk, which begins where it is first asked to. `room` is given back when it is done.
    pub(super) fn read_from_disk(
        self: &Arc<Self>,
        key: &Key,
        head: &Arc<Head>,
        suffix: &'static str,
        on_disk: &OnDisk,
        room: Reservation,
    ) -> Reader {
        let source = DiskSource {
            exchange: Arc::clone(self),
            key: key.clone(),
            head: Arc::clone(head),
            is_own: suffix.is_empty(),
            on_disk: on_disk.clone(),
        };
        inflight::lazy(on_disk.length(), Some(room), move |writer, first, length| {
            let (drain, control) = (source.exchange.drain.clone(), source.exchange.control.clone());
            drain.spawn_on(&control, "disk-body", source.pump(writer, first, length));
        })
    }

    /// Room on the disk for a body that is too large for memory. Only for one that could be taken up again by its entity
    /// tag: else a fault of the disk would break the answer.
    pub(super) async fn room_on_disk(
        &self,
        head: &Head,
        length: Option<u64>,
        ahead: u64,
    ) -> Option<(Fill, Reservation)> {
        let disk = self.cache.disk.as_ref()?;
        if head.status != StatusCode::OK || head.part.is_some() || !is_strong(head.etag.as_ref()) {
            return None;
        }
        let bytes = FILL_BYTES + ahead;
        let room = self.cache.budget.reserve(bytes, bytes)?;
        Some((disk.fill(length).await?, room))
    }

    /// Takes a large body in: everybody follows what has come to the disk, and it is stored when it came whole.
    pub(super) async fn take_to_disk(
        self: &Arc<Self>,
        order: Order,
        head: Arc<Head>,
        (mut body, length): (Incoming, Option<u64>),
        (mut fill, _room): (Fill, Reservation),
        mut leader: Leading,
    ) {
        let large = Large {
            exchange: Arc::clone(self),
            key: order.key.clone(),
            head: Arc::clone(&head),
            body: fill.body(length),
            places: fill.places(),
            ahead: body.ahead_bytes(),
        };
        let taken_up = large.taken_up();
        leader.arriving(Arc::new(Arriving::to_disk(large, Arc::clone(&head), length)));
        // Those who read it are told when it breaks, and go on by themselves as far as the origin lets them.
        if !fill_from(&mut fill, &mut body).await {
            return leader.leave();
        }
        let proof = body.into_proof();
        if !complete(&mut fill, &taken_up).await {
            return leader.leave();
        }
        if let Some(proof) = proof
            && !is_proved(proof, &fill.body(length), length, &order.key).await
        {
            return leader.leave();
        }
        if let Some(on_disk) = fill.finish(&order.key, &intake::for_all(&head)).await {
            let head = intake::for_all(&head);
            let own = intake::own_form(&head, Content::Disk(Box::new(on_disk)));
            let stored = StoredResponse::new(head, own);
            stored.set_offered(true);
            self.cache.memory.insert(&order.key, Arc::new(stored));
            self.metrics().stored.inc();
        }
        leader.leave();
    }
}

/// Brings what is missing of a body that came at several places, of which some were left. Whether it is whole.
async fn complete(fill: &mut Fill, taken_up: &TakenUp) -> bool {
    loop {
        let (first, end) = match fill.rest().await {
            Rest::Nothing => return true,
            Rest::Failed => return false,
            Rest::Gap { first, end } => (first, end),
        };
        let Ok((answer, 0)) = taken_up.ask(first, Some(end)).await else {
            return false;
        };
        if !fill_from(fill, &mut Incoming::of(answer.body)).await {
            return false;
        }
    }
}

/// Whether a body that came at several places is the one that the bucket has. What the fetch of the whole has not seen is read
/// from the disk.
async fn is_proved(mut proof: Proof, body: &OnDisk, length: Option<u64>, key: &Key) -> bool {
    let Some(length) = length else {
        return false;
    };
    let mut reader = body.reader();
    while proof.seen() < length {
        match reader.read(proof.seen()).await {
            Ok(Some(bytes)) => proof.update(&bytes),
            Ok(None) | Err(_) => return false,
        }
    }
    let proved = proof.finish();
    if let Err(error) = &proved {
        tracing::error!(key = key.as_str(), %error, "a body that came at several places is not stored");
    }
    proved.is_ok()
}

/// Writes a body to the disk, until its end or where it has come already. `false` when it broke.
async fn fill_from(fill: &mut Fill, body: &mut Incoming) -> bool {
    let mut written = 0;
    while let Some(chunk) = body.chunk().await {
        let chunk = chunk.inspect_err(|error| tracing::warn!(%error, written, "the origin's body broke"));
        let Ok(chunk) = chunk else {
            return false;
        };
        written += chunk.len() as u64;
        match fill.write(chunk).await {
            Taken::On => {}
            Taken::Met => return true,
            Taken::Failed => return false,
        }
    }
    written > 0
}

impl Arriving {
    /// A body on its way to the disk.
    pub(super) fn to_disk(large: Large, head: Arc<Head>, length: Option<u64>) -> Self {
        let (_, joiner) = inflight::open(length, None);
        Self {
            head,
            length,
            not_stored: None,
            joiner,
            own: Mutex::default(),
            large: Some(large),
        }
    }

    /// Whether the body goes to the disk, for it is too large for memory.
    pub(super) fn goes_to_disk(&self) -> bool {
        self.large.is_some()
    }

    /// Whether the byte at `first` is so far from what has come that it is better asked for by itself.
    pub(super) fn is_far(&self, first: u64) -> bool {
        self.large.as_ref().is_some_and(|large| large.is_far(first))
    }

    /// Has a large body come at the byte `first` as well, for all who ask for it. `false` when that cannot be.
    pub(super) fn comes_at(&self, first: u64) -> bool {
        self.large.as_ref().is_some_and(|large| large.comes_at(first))
    }
}

/// Whether a response's own body is on the disk only.
pub(super) fn is_on_disk(stored: &StoredResponse) -> bool {
    stored
        .own_form()
        .is_some_and(|form| form.body.in_memory().is_none())
}

pub(super) fn is_strong(etag: Option<&HeaderValue>) -> bool {
    etag.is_some_and(|etag| !etag.as_bytes().starts_with(b"W/"))
}

/// A stored body that is being sent, and where to go on if it cannot be read on.
struct DiskSource {
    exchange: Arc<Exchange>,
    key: Key,
    head: Arc<Head>,
    /// Whether it is the form that the origin keeps.
    is_own: bool,
    on_disk: OnDisk,
}

impl DiskSource {
    async fn pump(self, mut writer: Writer, first: u64, length: Option<u64>) {
        let end = length.map(|length| first.saturating_add(length));
        let mut at = first;
        let mut reader = self.on_disk.reader();
        while end.is_none_or(|end| at < end) {
            match reader.read(at).await {
                Ok(None) => break,
                Ok(Some(mut chunk)) => {
                    if let Some(end) = end {
                        chunk.truncate(usize::try_from(end - at).unwrap_or(usize::MAX));
                    }
                    at += chunk.len() as u64;
                    if !writer.write(chunk).await {
                        return writer.fail(Broken::Abandoned);
                    }
                }
                Err(why) => {
                    self.give_up(why);
                    return match self.resume(&mut writer, at, end).await {
                        Ok(()) => writer.finish(),
                        Err(why) => writer.fail(why),
                    };
                }
            }
        }
        writer.finish();
    }

    /// What cannot be read is taken out, so that the next request fetches it again.
    fn give_up(&self, why: Unreadable) {
        tracing::warn!(key = self.key.as_str(), %why, "a stored body is taken up from the origin");
        if why != Unreadable::Slow {
            self.on_disk.forget();
            let entry = self.exchange.cache.memory.find(&self.key);
            let holds = |stored: &Arc<StoredResponse>| stored.head.id == self.head.id;
            if entry.is_some_and(|entry| entry.variants().iter().any(holds)) {
                self.exchange.cache.memory.remove(&self.key);
            }
        }
    }

    /// Goes on with the origin's own bytes from `at`, if it still has the same.
    async fn resume(&self, writer: &mut Writer, at: u64, end: Option<u64>) -> Result<(), Broken> {
        if !self.is_own {
            return Err(Broken::Disk);
        }
        let taken_up = TakenUp {
            exchange: Arc::clone(&self.exchange),
            key: self.key.clone(),
            head: Arc::clone(&self.head),
        };
        let (answer, mut skip) = taken_up.ask(at, end).await?;
        let mut left = end.map(|end| end - at);
        let mut body = answer.body;
        while left != Some(0) {
            let Some(chunk) = body.chunk().await else {
                return if left.is_none() { Ok(()) } else { Err(Broken::Disk) };
            };
            let mut chunk: Bytes = chunk.map_err(|_| Broken::Disk)?;
            let passed = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= passed as u64;
            drop(chunk.split_to(passed));
            if let Some(left) = &mut left {
                chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= chunk.len() as u64;
            }
            if !writer.write(chunk).await {
                return Err(Broken::Abandoned);
            }
        }
        Ok(())
    }
}
