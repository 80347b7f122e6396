//! The way of an entry to the writer: a queue for each thread, so that threads do not wait for one another.
//!
//! An entry's texts are copied. Moving them over instead would keep the buffers that requests were read into alive, and
//! leave it to the writer to free what the data plane allocated.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{StatusCode, Version};

use super::super::metrics::{THREADS_MAX, thread_number};
use super::Entry;
use crate::clock::Timestamp;

/// Bytes of text that wait for the writer, by thread.
const TEXT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits.
    Queued,
    /// It waits, and the writer sleeps.
    QueuedForSleeper,
    /// There was no room.
    Full,
}

/// All entries that wait.
#[derive(Debug)]
pub(super) struct Queue {
    lanes: Box<[Lane]>,
    entries_max: usize,
}

/// On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    batch: Batch,
    /// The writer waits to be woken.
    is_awaited: bool,
}

/// Entries of one thread, in their order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    entries: Vec<Waiting>,
    text: Vec<u8>,
}

/// An entry whose texts stand one after the other in the batch's text.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    lengths: [u32; 4],
    fields: [Option<u32>; 2],
    scheme: &'static str,
    version: Version,
    status: StatusCode,
    client: IpAddr,
    bytes: u64,
    received: Timestamp,
    duration: Duration,
    first_byte: Duration,
    cache: &'static str,
    coding: &'static str,
    end: &'static str,
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Room for `entries_max` entries of each thread.
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            lanes: (0..*THREADS_MAX).map(|_| Lane::default()).collect(),
            entries_max,
        }
    }

    /// Copies `entry`.
    pub(super) fn push(&self, entry: &Entry<'_>) -> Pushed {
        let Some(lane) = self.lanes.get(thread_number() % self.lanes.len().max(1)) else {
            return Pushed::Full;
        };
        let mut state = lane.lock();
        let batch = &mut state.batch;
        if batch.entries.len() >= self.entries_max || batch.text.len() >= TEXT_BYTES_MAX {
            return Pushed::Full;
        }
        batch.push(entry);
        if std::mem::take(&mut state.is_awaited) {
            Pushed::QueuedForSleeper
        } else {
            Pushed::Queued
        }
    }

    /// Takes all that waits, lane by lane, into `batch`, and hands it to `take`. Returns how many entries there were.
    pub(super) fn drain(&self, batch: &mut Batch, mut take: impl FnMut(&Entry<'_>)) -> usize {
        let mut count = 0;
        for lane in &self.lanes {
            batch.clear();
            std::mem::swap(batch, &mut lane.lock().batch);
            count += batch.entries.len();
            batch.for_each(&mut take);
        }
        count
    }

    /// Whether nothing waits; then the next push says that the writer sleeps.
    pub(super) fn is_empty_and_awaited(&self) -> bool {
        self.lanes.iter().all(|lane| {
            let mut state = lane.lock();
            state.is_awaited = state.batch.entries.is_empty();
            state.is_awaited
        })
    }
}

impl Batch {
    fn clear(&mut self) {
        self.entries.clear();
        self.text.clear();
    }

    fn push(&mut self, entry: &Entry<'_>) {
        let mut add = |bytes: &[u8]| {
            self.text.extend_from_slice(bytes);
            u32::try_from(bytes.len()).unwrap_or(u32::MAX)
        };
        let lengths = [entry.method, entry.host, entry.target, entry.site].map(|text| add(text.as_bytes()));
        let fields = [entry.referer, entry.user_agent].map(|field| field.map(&mut add));
        self.entries.push(Waiting {
            lengths,
            fields,
            scheme: entry.scheme,
            version: entry.version,
            status: entry.status,
            client: entry.client,
            bytes: entry.bytes,
            received: entry.received,
            duration: entry.duration,
            first_byte: entry.first_byte,
            cache: entry.cache,
            coding: entry.coding,
            end: entry.end,
        });
    }

    fn for_each(&self, take: &mut impl FnMut(&Entry<'_>)) {
        let mut rest = self.text.as_slice();
        let mut next = |length: u32| {
            let (text, after) = rest.split_at_checked(length as usize).unwrap_or((rest, &[]));
            rest = after;
            text
        };
        for waiting in &self.entries {
            let [method, host, target, site] = waiting
                .lengths
                .map(|length| str::from_utf8(next(length)).unwrap_or_default());
            let [referer, user_agent] = waiting.fields.map(|field| field.map(&mut next));
            take(&Entry {
                method,
                scheme: waiting.scheme,
                host,
                target,
                version: waiting.version,
                status: waiting.status,
                client: waiting.client,
                referer,
                user_agent,
                bytes: waiting.bytes,
                received: waiting.received,
                duration: waiting.duration,
                first_byte: waiting.first_byte,
                cache: waiting.cache,
                coding: waiting.coding,
                site,
                end: waiting.end,
            });
        }
    }
}
