//! The coded forms of a response: each made once, by one job that all who want it follow, kept beside the origin's own
//! form, and bettered once in the background.
//!
//! Coding runs on the control plane, at most `CODERS` at a time, so that a burst of new scripts cannot take the data
//! plane's cores. The better forms are made on one thread of their own, which sleeps so much that it stays within its
//! share of a core. How bytes are coded is for `representation::encoder` to say.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::select::Subject;
use super::{Exchange, intake};
use crate::cache::inflight::{self, Broken, Joiner, Reader, Writer};
use crate::cache::key::Key;
use crate::cache::store::{Content, Form, Head, Reservation};
use crate::representation::coding::{Coding, SMALL_BYTES};
use crate::representation::encoder::{Decoder, Encoder, Quality};

/// The suffix of a form that was decoded from what the origin keeps.
pub const DECODED: &str = "identity";

/// How many coders may compute at once.
const CODERS: usize = 1;

/// How many forms may be in the making; above it, clients get the origin's own form.
const JOBS_MAX: usize = 256;

/// How many better forms may wait to be made; above it, the fast form stays.
const IMPROVEMENTS_MAX: usize = 1024;

/// Forms of bodies up to this many bytes are waited for, so that their answer can say its length.
const WAITED_FOR_BYTES: u64 = 64 * 1024;

/// Bodies above this many bytes keep their fast form.
const IMPROVED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What gzip takes, either way.
const GZIP_BYTES: u64 = 384 * 1024;

/// What another coder of the fast quality takes by itself...
const CODER_BYTES: u64 = 1024 * 1024;

/// ...and besides for as much content as it has seen, at most.
const CODER_WINDOW_BYTES: u64 = 4 * 1024 * 1024;

/// What the best quality takes by itself, and for each byte of content: it looks for all that ever matched.
const BEST_BYTES: u64 = 8 * 1024 * 1024;
const BEST_BYTES_EACH: u64 = 12;

/// The content that a coder takes at once.
const PIECE_BYTES: usize = 64 * 1024;

/// A form for a client: there already, or to be followed.
#[derive(Debug)]
pub enum Following {
    /// It has been made.
    Made(Arc<Form>),
    /// It is being made.
    Reader(Reader),
}

/// The forms in the making.
#[derive(Debug)]
pub struct Forms {
    jobs: Mutex<HashMap<(u64, Coding), Joiner>>,
    coders: Semaphore,
    improvements: SyncSender<Improvement>,
}

/// A better form to be made.
#[derive(Debug)]
pub(super) struct Improvement {
    key: Key,
    id: u64,
    coding: Coding,
}

impl Forms {
    /// The table of forms, and the queue of those to be bettered, which [`start_bettering`] empties.
    pub(super) fn new() -> (Self, Receiver<Improvement>) {
        let (improvements, waiting) = sync_channel(IMPROVEMENTS_MAX);
        (
            Self {
                jobs: Mutex::default(),
                coders: Semaphore::new(CODERS),
                improvements,
            },
            waiting,
        )
    }
}

impl Exchange {
    /// Leave to compute a coded form. Held while computing.
    pub(super) async fn coder(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.forms.coders.acquire().await.ok()
    }

    /// The form of `subject` in `coding`; `None` when too many are in the making.
    pub(super) async fn follow_form(
        self: &Arc<Self>,
        key: &Key,
        subject: &Subject,
        coding: Coding,
    ) -> Option<Following> {
        let head = Arc::clone(subject.head());
        if let Some(form) = self.made(key, head.id, coding) {
            return Some(Following::Made(form));
        }
        let (source_bytes, mut reader) = self.job(key, subject, coding)?;
        if source_bytes.is_none_or(|bytes| bytes > WAITED_FOR_BYTES) {
            return Some(Following::Reader(reader));
        }
        let mut body = Vec::new();
        while let Some(chunk) = reader.chunk().await {
            body.extend_from_slice(&chunk.ok()?);
        }
        if let Some(form) = self.made(key, head.id, coding) {
            return Some(Following::Made(form));
        }
        let body = self.cache.budget.count(body.len() as u64).hold(body);
        let suffix = suffix(coding);
        Some(Following::Made(Arc::new(intake::form(
            &head, coding, suffix, body,
        ))))
    }

    /// The form, if it was made since the subject was looked up.
    fn made(&self, key: &Key, id: u64, coding: Coding) -> Option<Arc<Form>> {
        let entry = self.cache.memory.find(key)?;
        let stored = entry.variants().iter().find(|stored| stored.head.id == id)?;
        stored.form(coding).cloned()
    }

    /// A reader of the job for this form, which is started if there is none; and the length of what is coded.
    fn job(self: &Arc<Self>, key: &Key, subject: &Subject, coding: Coding) -> Option<(Option<u64>, Reader)> {
        let head = Arc::clone(subject.head());
        let mut jobs = self.forms.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let (length, kept) = match subject {
            Subject::Stored(stored) => (stored.own_form().map(|form| form.body.len()), true),
            Subject::Arriving(arriving) => (arriving.length, arriving.not_stored.is_none()),
        };
        if let Some(reader) = jobs.get(&(head.id, coding)).and_then(Joiner::join) {
            return Some((length, reader));
        }
        if jobs.len() >= JOBS_MAX {
            self.metrics().forms_skipped.inc();
            return None;
        }
        let Some(working) = self.working_room(coding, head.coding, length) else {
            self.metrics().forms_skipped.inc();
            return None;
        };
        // Room first: the only reader of a body that is not kept is not taken for nothing.
        let past = match kept {
            true => None,
            false => Some(self.cache.budget.stream(None, 0)?),
        };
        let source = match subject {
            Subject::Stored(stored) => match &stored.own_form()?.body {
                Content::Memory(bytes) => Source::Whole(bytes.clone()),
                Content::Disk(on_disk) => {
                    let room = self.room_to_read(on_disk.length())?;
                    Source::Arriving(self.read_from_disk(key, &head, "", on_disk, room))
                }
            },
            Subject::Arriving(arriving) => {
                let room = match arriving.goes_to_disk() {
                    true => Some(self.room_to_read(arriving.length)?),
                    false => None,
                };
                Source::Arriving(arriving.reader(room)?)
            }
        };
        let (writer, joiner) = match past {
            None => inflight::open(None, self.cache.budget.keep(0, self.cache.object_bytes_max)),
            Some(room) => inflight::past(None, room),
        };
        let reader = joiner.join()?;
        jobs.insert((head.id, coding), joiner);
        drop(jobs);
        let job = Job {
            exchange: Arc::clone(self),
            key: key.clone(),
            head,
            coding,
            _working: working,
        };
        self.drain.spawn_on(
            &self.control,
            "form",
            async move { job.run(source, writer).await },
        );
        Some((length, reader))
    }

    /// Room for a coder of `length` bytes, if that is known: its tables, and a window that grows with what it has seen.
    fn working_room(&self, to: Coding, from: Coding, length: Option<u64>) -> Option<Reservation> {
        let window = length.map_or(CODER_WINDOW_BYTES, |length| length.min(CODER_WINDOW_BYTES));
        let bytes = match (to, from) {
            (Coding::Gzip, _) | (Coding::Identity, Coding::Gzip) => GZIP_BYTES,
            (Coding::Identity, _) => CODER_WINDOW_BYTES,
            (Coding::Br | Coding::Zstd, _) => CODER_BYTES + window,
        };
        self.cache.budget.reserve(bytes, bytes)
    }
}

/// What is coded.
enum Source {
    Arriving(Reader),
    Whole(Bytes),
}

impl Source {
    async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        match self {
            Self::Arriving(reader) => reader.chunk().await,
            Self::Whole(body) if body.is_empty() => None,
            Self::Whole(body) => Some(Ok(body.split_to(PIECE_BYTES.min(body.len())))),
        }
    }
}

/// One form in the making. Dropped, it leaves the table.
struct Job {
    exchange: Arc<Exchange>,
    key: Key,
    head: Arc<Head>,
    coding: Coding,
    _working: Reservation,
}

impl Job {
    async fn run(self, mut source: Source, mut writer: Writer) {
        let coder = match self.coding {
            Coding::Identity => Decoder::new(self.head.coding).map(Coder::Decode),
            coding => Encoder::new(coding, Quality::Fast).map(Coder::Encode),
        };
        let Some(coder) = coder else {
            return writer.fail(Broken::Coding);
        };
        match self.code(coder, &mut source, &mut writer).await {
            Ok(()) => self.keep(writer),
            Err(why) => writer.fail(why),
        }
    }

    /// Codes piece by piece. A permit is held while computing, never while waiting for the source or for a reader.
    async fn code(&self, mut coder: Coder, source: &mut Source, writer: &mut Writer) -> Result<(), Broken> {
        while let Some(piece) = source.next().await {
            let mut piece = piece?;
            loop {
                let coded = {
                    let _permit = self.exchange.forms.coders.acquire().await;
                    coder.code(&mut piece).map_err(|error| self.failed(&error))?
                };
                // A decoder gives a bounded piece at a time: it is done with its input when nothing comes any more.
                if coded.is_empty() && piece.is_empty() {
                    break;
                }
                if !writer.write(coded).await {
                    return Err(Broken::Abandoned);
                }
            }
        }
        let rest = {
            let _permit = self.exchange.forms.coders.acquire().await;
            coder.finish().map_err(|error| self.failed(&error))?
        };
        writer.write(rest).await;
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> Broken {
        tracing::warn!(key = self.key.as_str(), coding = self.coding.token(), %error, "a body could not be coded");
        Broken::Coding
    }

    /// Puts the form beside the origin's own before its end is announced, and asks for a better one.
    fn keep(&self, writer: Writer) {
        if let Ok(Some(body)) = writer.whole() {
            let improvable = self.coding != Coding::Identity && body.len() as u64 > SMALL_BYTES;
            // The response may have been freshened meanwhile: its fields are taken as they are now.
            self.exchange
                .cache
                .memory
                .update(&self.key, self.head.id, |stored| {
                    let mut form = intake::form(&stored.head, self.coding, suffix(self.coding), body.clone());
                    form.improvable = improvable;
                    stored.with_form(form)
                });
            self.exchange.metrics().forms_made.inc();
            if improvable {
                let improvement = Improvement {
                    key: self.key.clone(),
                    id: self.head.id,
                    coding: self.coding,
                };
                // A full queue leaves the fast form in place.
                let _ = self.exchange.forms.improvements.try_send(improvement);
            }
        }
        writer.finish();
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let mut jobs = self
            .exchange
            .forms
            .jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        jobs.remove(&(self.head.id, self.coding));
    }
}

enum Coder {
    Decode(Decoder),
    Encode(Encoder),
}

impl Coder {
    /// Takes from `piece`, and gives what came out. A decoder may leave some of the piece for the next call.
    fn code(&mut self, piece: &mut Bytes) -> io::Result<Bytes> {
        match self {
            Self::Decode(decoder) => decoder.decode(piece),
            Self::Encode(encoder) => encoder.write(&std::mem::take(piece)),
        }
    }

    fn finish(self) -> io::Result<Bytes> {
        match self {
            Self::Decode(decoder) => decoder.finish().map(|()| Bytes::new()),
            Self::Encode(encoder) => encoder.finish(),
        }
    }
}

fn suffix(coding: Coding) -> &'static str {
    if coding == Coding::Identity {
        DECODED
    } else {
        coding.suffix(Quality::Fast)
    }
}

/// Starts the thread that betters forms, one at a time, within `share` of a core. It ends when `exchange` is gone.
pub(super) fn start_bettering(
    exchange: Weak<Exchange>,
    waiting: Receiver<Improvement>,
    share: f64,
) -> io::Result<()> {
    if share <= 0.0 {
        return Ok(());
    }
    let better_forms = move || {
        while let Ok(improvement) = waiting.recv() {
            let Some(exchange) = exchange.upgrade() else {
                return;
            };
            if let Err(error) = improvement.make(&exchange, share.min(1.0)) {
                tracing::warn!(key = improvement.key.as_str(), %error, "a better form could not be made");
            }
        }
    };
    std::thread::Builder::new()
        .name("portico-forms".into())
        .spawn(better_forms)
        .map(drop)
}

impl Improvement {
    fn make(&self, exchange: &Exchange, share: f64) -> io::Result<()> {
        let Some(entry) = exchange.cache.memory.find(&self.key) else {
            return Ok(());
        };
        let Some(stored) = entry.variants().iter().find(|stored| stored.head.id == self.id) else {
            return Ok(());
        };
        let (Some(own), Some(fast)) = (stored.own_form(), stored.form(self.coding)) else {
            return Ok(());
        };
        let (Some(own), Some(fast_body)) = (own.body.in_memory(), fast.body.in_memory()) else {
            return Ok(());
        };
        if !fast.improvable || own.len() > IMPROVED_BYTES_MAX {
            return Ok(());
        }
        let Some(mut encoder) = Encoder::new(self.coding, Quality::Best) else {
            return Ok(());
        };
        // Without room for it the fast form stays.
        let working = BEST_BYTES + BEST_BYTES_EACH * own.len() as u64;
        let Some(working) = exchange.cache.budget.keep(working, working) else {
            return Ok(());
        };
        let mut body = Vec::new();
        for piece in own.chunks(PIECE_BYTES) {
            let began = exchange.clock.now();
            body.extend_from_slice(&encoder.write(piece)?);
            rest(exchange.clock.now().since(began), share);
        }
        let began = exchange.clock.now();
        body.extend_from_slice(&encoder.finish()?);
        // What is no longer than a block is coded here.
        let worked = exchange.clock.now().since(began);
        let (suffix, body) = if body.len() < fast_body.len() {
            (self.coding.suffix(Quality::Best), working.hold(body))
        } else {
            (fast.suffix, fast_body.clone())
        };
        exchange.cache.memory.update(&self.key, self.id, |stored| {
            stored.with_form(intake::form(&stored.head, self.coding, suffix, body.clone()))
        });
        // What took so long is not made again after a restart.
        exchange.keep_on_disk(&self.key, self.id);
        rest(worked, share);
        Ok(())
    }
}

/// Sleeps so long that the time worked is `share` of the whole.
fn rest(worked: Duration, share: f64) {
    if share < 1.0 {
        std::thread::sleep(worked.mul_f64((1.0 - share) / share));
    }
}
