//! What is stored: responses, each in one or more coded forms, and the budget that all their bytes come from.
//!
//! A stored response is immutable; a new form or a freshened head makes a new one that shares the bodies. The store
//! knows keys and sizes, not fields: whether a response may be served is for `policy` to say.

mod budget;
pub mod disk;
mod memory;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

pub use budget::{Budget, Reservation, WINDOW_BYTES};
pub use disk::{Disk, OnDisk};
pub use memory::{Entry, Memory};

use super::epoch::Position;
use super::policy::freshness::{self, Lifetime};
use super::policy::partial::Part;
use super::policy::vary::VaryKey;
use super::tag::Tag;
use crate::clock::Timestamp;
use crate::representation::coding::Coding;

/// Everything about a response but its body.
#[derive(Clone, Debug)]
pub struct Head {
    /// Names this response among all that this process has seen; its coded forms belong to it.
    pub id: u64,
    /// The status code.
    pub status: StatusCode,
    /// The fields as they are sent on, without those that belong to one form (ETag, Content-Encoding, Content-Length)
    /// and without those that are made anew for each answer (Age, Date, Via, Cache-Status).
    pub fields: HeaderMap,
    /// The fields as the origin sent them, for validation and freshening.
    pub origin_fields: HeaderMap,
    /// The bucket that it came from.
    pub source: Arc<str>,
    /// The request fields that it depends on, when the origin named any.
    pub vary: Option<VaryKey>,
    /// How long it may be served.
    pub lifetime: Lifetime,
    /// When the answer arrived.
    pub response_time: Timestamp,
    /// RFC 9111 4.2.3, at `response_time`.
    pub initial_age: Duration,
    /// The epoch at which its fetch began.
    pub position: Position,
    /// For purges by tag.
    pub tags: Box<[Tag]>,
    /// The coding in which the origin keeps it.
    pub coding: Coding,
    /// The origin's validator, from which each form's own is made.
    pub etag: Option<HeaderValue>,
    /// When the origin last changed it.
    pub last_modified: Option<Timestamp>,
    /// Whether other codings may be made of it.
    pub codable: bool,
    /// Where its bytes stand, when they are not all (RFC 9111 section 3.3).
    pub part: Option<Part>,
    /// Fields for the client whose request brought it, and for nobody else (RFC 9111 sections 5.2.2.4 and 5.2.2.7).
    /// What is stored has none.
    pub withheld: HeaderMap,
}

impl Head {
    /// The age at `now` (RFC 9111 section 4.2.3).
    pub fn age(&self, now: Timestamp) -> Duration {
        freshness::current_age(self.initial_age, self.response_time, now)
    }

    /// Whether both are of the same version, as far as the origin says.
    pub fn is_of(&self, other: &Self) -> bool {
        self.etag == other.etag && self.last_modified == other.last_modified
    }

    /// Whether a request with these fields may be answered with it (RFC 9111 section 4.1).
    pub fn suits(&self, request: &HeaderMap) -> bool {
        self.vary.as_ref().is_none_or(|vary| vary.matches(request))
    }
}

/// One coded form of a stored response.
#[derive(Clone, Debug)]
pub struct Form {
    /// Its coding.
    pub coding: Coding,
    /// How it was coded, as its ETag shows; empty for the origin's own form.
    pub suffix: &'static str,
    /// Its bytes, or where they are.
    pub body: Content,
    /// Its entity tag.
    pub etag: Option<HeaderValue>,
    /// The fields of answers with it.
    pub dressed: Dressed,
    /// Whether a better form of the same coding may still be made.
    pub improvable: bool,
}

/// Fields that were put together once, to be sent again and again. They are made when they are first asked for, and anew
/// when somebody else puts them together: after a reload, say.
#[derive(Debug, Default)]
pub struct Dressed(ArcSwapOption<(u64, HeaderMap)>);

impl Dressed {
    /// The fields as `who` puts them together.
    pub fn by(&self, who: u64, make: impl FnOnce() -> HeaderMap) -> HeaderMap {
        if let Some(kept) = &*self.0.load()
            && kept.0 == who
        {
            return kept.1.clone();
        }
        let made = make();
        // The copy that is kept has no room to spare.
        self.0.store(Some(Arc::new((who, made.clone()))));
        made
    }
}

impl Clone for Dressed {
    fn clone(&self) -> Self {
        Self(ArcSwapOption::new(self.0.load_full()))
    }
}

/// The bytes of a form, or where they are.
#[derive(Clone, Debug)]
pub enum Content {
    /// On the disk, from where they stream.
    Disk(Box<OnDisk>),
    /// Here.
    Memory(Bytes),
}

impl Content {
    /// How many they are.
    pub fn len(&self) -> u64 {
        match self {
            Self::Disk(on_disk) => on_disk.length().unwrap_or(0),
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, when they are here.
    pub fn in_memory(&self) -> Option<&Bytes> {
        match self {
            Self::Disk(_) => None,
            Self::Memory(bytes) => Some(bytes),
        }
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self::Memory(bytes)
    }
}

/// A stored response.
#[derive(Debug)]
pub struct StoredResponse {
    /// Everything but the body.
    pub head: Arc<Head>,
    /// The forms, the origin's own first.
    pub forms: Vec<Arc<Form>>,
    /// No purge up to here concerns this response.
    vetted: AtomicU64,
    /// Whether the disk tier has been given this response, or it came from there.
    offered: AtomicBool,
    /// What it takes besides its bodies, from when it is stored.
    counted: OnceLock<Reservation>,
}

impl StoredResponse {
    /// A response with the origin's own form.
    pub fn new(head: Arc<Head>, own: Form) -> Self {
        Self::with_forms(head, vec![Arc::new(own)])
    }

    /// A response with all of `forms`, the origin's own first.
    pub fn with_forms(head: Arc<Head>, forms: Vec<Arc<Form>>) -> Self {
        let vetted = AtomicU64::new(head.position.number());
        Self {
            head,
            forms,
            vetted,
            offered: AtomicBool::new(false),
            counted: OnceLock::new(),
        }
    }

    /// Counts what it takes besides its bodies, which count by themselves, for as long as anybody holds it.
    /// `beside` is what its place in the store takes.
    pub(super) fn count(&self, budget: &Budget, beside: u64) {
        let bodies = self.forms.iter().filter_map(|form| form.body.in_memory());
        let bodies: usize = bodies.map(Bytes::len).sum();
        self.counted
            .get_or_init(|| budget.count(self.bytes().saturating_sub(bodies as u64) + beside));
    }

    /// Whether the disk tier has been given this response, or it came from there.
    pub fn is_offered(&self) -> bool {
        self.offered.load(Ordering::Relaxed)
    }

    /// Remembers whether the disk tier has this response.
    pub fn set_offered(&self, offered: bool) {
        self.offered.store(offered, Ordering::Relaxed);
    }

    /// The form as the origin keeps it.
    pub fn own_form(&self) -> Option<&Arc<Form>> {
        self.forms.first()
    }

    /// The form of `coding`, when it has been made.
    pub fn form(&self, coding: Coding) -> Option<&Arc<Form>> {
        self.forms.iter().find(|form| form.coding == coding)
    }

    /// This response with `form` in place of the one of the same coding, or beside the others.
    pub fn with_form(&self, form: Form) -> Self {
        let mut forms = self.forms.clone();
        let form = Arc::new(form);
        match forms.iter_mut().find(|held| held.coding == form.coding) {
            Some(held) => *held = form,
            None => forms.push(form),
        }
        let with = Self::with_forms(Arc::clone(&self.head), forms);
        with.set_offered(self.is_offered());
        with
    }

    /// Whether no purge up to `position` concerns this response, as far as was looked already.
    pub fn is_vetted(&self, position: Position) -> bool {
        self.vetted.load(Ordering::Relaxed) >= position.number()
    }

    /// Remembers that no purge up to `position` concerns this response.
    pub fn vet(&self, position: Position) {
        self.vetted.fetch_max(position.number(), Ordering::Relaxed);
    }

    /// Bytes that it takes, its fields estimated.
    pub fn bytes(&self) -> u64 {
        let fields = |map: &HeaderMap| {
            map.iter()
                .map(|(name, value)| name.as_str().len() + value.len() + 48)
                .sum::<usize>()
        };
        let forms: usize = self
            .forms
            .iter()
            .map(|form| form.body.in_memory().map_or(64, Bytes::len) + fields(&self.head.fields) + 768)
            .sum();
        let tags: usize = self.head.tags.iter().map(|tag| tag.as_str().len() + 16).sum();
        (forms + fields(&self.head.fields) + fields(&self.head.origin_fields) + tags + 512) as u64
    }
}
