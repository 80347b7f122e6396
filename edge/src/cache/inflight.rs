//! A body that is still arriving: one writer, many readers, each at its own place.
//!
//! While the body fits its allowance every chunk is kept, so that a reader may join at any time, a slow reader slows
//! nobody, and the whole can be stored at the end. The last bytes are given out only then, so that whoever has them all
//! finds the body stored; and those who still read go on with the stored bytes, so that a slow reader holds no
//! allowance. A body that outgrows its allowance becomes a *stream past*: chunks are dropped once every reader has them,
//! nobody can join any more, and the writer waits for the slowest reader.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

use super::store::Reservation;

/// How far ahead of its slowest reader a stream past may run, in bytes.
const WINDOW_BYTES: u64 = 1024 * 1024;

/// Why a body ended before its end. Its text goes to the log only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The origin closed, stalled or lied about the length, and could not be resumed.
    #[error("the origin's body ended early")]
    Origin,
    /// The disk's copy could not be read on, and neither could the origin's.
    #[error("the stored body could not be read on")]
    Disk,
    /// A coder failed.
    #[error("the body could not be coded")]
    Coding,
    /// The writer was dropped: a task ended by a panic or by the drain's deadline.
    #[error("the fetch was given up")]
    Abandoned,
}

/// How the body stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Whole,
    Broken(Broken),
}

#[derive(Debug)]
struct State {
    chunks: VecDeque<Bytes>,
    /// How many chunks were dropped from the front.
    dropped: usize,
    /// Bytes written so far.
    written: u64,
    /// The chunks in one piece, once they have been asked for.
    whole: Bytes,
    end: End,
    /// Bytes that may be kept; `None` once the body is a stream past.
    allowance: Option<Reservation>,
    /// Each reader's next chunk, by slot.
    readers: Vec<Option<Place>>,
    writer: Option<Waker>,
}

#[derive(Debug, Default)]
struct Place {
    next: usize,
    read: u64,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Shared {
    length: Option<u64>,
    state: Mutex<State>,
}

impl Shared {
    fn new(length: Option<u64>, allowance: Option<Reservation>) -> Arc<Self> {
        Arc::new(Self {
            length,
            state: Mutex::new(State {
                chunks: VecDeque::new(),
                dropped: 0,
                written: 0,
                whole: Bytes::new(),
                end: End::Open,
                allowance,
                readers: Vec::new(),
                writer: None,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writing end. Dropping it before [`Writer::finish`] breaks the body for all readers.
#[derive(Debug)]
pub struct Writer(Arc<Shared>);

/// A handle by which readers join while the body is still kept whole.
#[derive(Clone, Debug)]
pub struct Joiner(Arc<Shared>);

/// A reading end: of the whole body, or of a window of it.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    /// For a body that is only written when it is read.
    lazy: Option<Lazy>,
    slot: usize,
    /// Bytes still to be passed over.
    skip: u64,
    /// Bytes still to be given, when it is a window.
    left: Option<u64>,
}

/// A body whose writing has not begun.
struct Lazy {
    length: Option<u64>,
    begin: Box<dyn FnOnce(u64, Option<u64>) + Send + Sync>,
}

impl std::fmt::Debug for Lazy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lazy({:?})", self.length)
    }
}

/// A reader of a body that is there already, elsewhere. When its first chunk is asked for, `begin` is given the writing
/// end, the first byte that is wanted, and how many are; it must not block.
pub fn lazy(
    length: Option<u64>,
    begin: impl FnOnce(Writer, u64, Option<u64>) + Send + Sync + 'static,
) -> Reader {
    let shared = Shared::new(None, None);
    shared.lock().readers.push(Some(Place::default()));
    let writer = Writer(Arc::clone(&shared));
    Reader {
        shared,
        lazy: Some(Lazy {
            length,
            begin: Box::new(move |first, length| begin(writer, first, length)),
        }),
        slot: 0,
        skip: 0,
        left: None,
    }
}

/// Opens a body of `length` bytes, if that is known. `allowance` is what may be kept of it; `None` opens it as a
/// stream past, which only the readers taken from the returned joiner before the first write can follow.
pub fn open(length: Option<u64>, allowance: Option<Reservation>) -> (Writer, Joiner) {
    let shared = Shared::new(length, allowance);
    (Writer(Arc::clone(&shared)), Joiner(shared))
}

impl Writer {
    /// Appends `chunk`; waits while a stream past is a window ahead of its slowest reader.
    /// Returns `false` when nobody will ever read it: not kept, and no reader left.
    pub async fn write(&mut self, chunk: Bytes) -> bool {
        if chunk.is_empty() {
            return true;
        }
        let mut chunk = Some(chunk);
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock();
            if !state.has_room() {
                state.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if let Some(chunk) = chunk.take() {
                state.push(chunk);
            }
            Poll::Ready(state.is_wanted())
        })
        .await
    }

    /// The whole body, before its end is announced, so that it can be stored before anybody sees it end.
    /// `None` when it was not kept; an error when it is not as long as was announced.
    pub fn whole(&self) -> Result<Option<Bytes>, Broken> {
        let mut state = self.0.lock();
        if self.0.length.is_some_and(|length| length != state.written) {
            return Err(Broken::Origin);
        }
        if state.allowance.is_none() {
            return Ok(None);
        }
        if state.chunks.len() > 1 {
            let mut whole = BytesMut::with_capacity(usize::try_from(state.written).unwrap_or(0));
            state
                .chunks
                .iter()
                .for_each(|chunk| whole.extend_from_slice(chunk));
            state.whole = whole.freeze();
        } else {
            state.whole = state.chunks.front().cloned().unwrap_or_default();
        }
        Ok(Some(state.whole.clone()))
    }

    /// Ends the body cleanly; broken after all when it is not as long as was announced.
    pub fn finish(self) {
        let mut state = self.0.lock();
        let complete = self.0.length.is_none_or(|length| length == state.written);
        if complete {
            state.share_whole();
        }
        state.close(if complete {
            End::Whole
        } else {
            End::Broken(Broken::Origin)
        });
    }

    /// Ends the body broken: every reader gets the error after what has arrived.
    pub fn fail(self, why: Broken) {
        self.0.lock().close(End::Broken(why));
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.0.lock().written
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if state.end == End::Open {
            state.close(End::Broken(Broken::Abandoned));
        }
    }
}

impl Joiner {
    /// A reader at the body's start; `None` when its start is gone.
    pub fn join(&self) -> Option<Reader> {
        let mut state = self.0.lock();
        if state.dropped > 0 || (state.allowance.is_none() && state.written > 0 && state.end == End::Open) {
            return None;
        }
        let place = Some(Place::default());
        let slot = match state.readers.iter().position(Option::is_none) {
            Some(free) => {
                if let Some(cell) = state.readers.get_mut(free) {
                    *cell = place;
                }
                free
            }
            None => {
                state.readers.push(place);
                state.readers.len() - 1
            }
        };
        Some(Reader {
            shared: Arc::clone(&self.0),
            lazy: None,
            slot,
            skip: 0,
            left: None,
        })
    }
}

impl Reader {
    /// The length in bytes of what is still to be given, when it was known from the start.
    pub fn length(&self) -> Option<u64> {
        let length = self.lazy.as_ref().map_or(self.shared.length, |lazy| lazy.length);
        self.left
            .or_else(|| length.map(|length| length.saturating_sub(self.skip)))
    }

    /// Narrows the reader to `length` bytes from `first`; to be called before the first chunk is taken.
    pub fn narrowed(mut self, first: u64, length: u64) -> Self {
        self.skip = first;
        self.left = Some(length);
        self
    }

    /// The next chunk; `None` at a clean end.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if let Some(lazy) = self.lazy.take() {
            let first = std::mem::take(&mut self.skip);
            self.left = self
                .left
                .or(lazy.length.map(|length| length.saturating_sub(first)));
            (lazy.begin)(first, self.left);
        }
        loop {
            if self.left == Some(0) {
                return Poll::Ready(None);
            }
            let length = self.shared.length;
            let next = std::task::ready!(self.shared.lock().poll_chunk(self.slot, length, cx));
            let Some(Ok(mut chunk)) = next else {
                return Poll::Ready(next);
            };
            let passed = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
            self.skip -= passed as u64;
            drop(chunk.split_to(passed));
            if let Some(left) = &mut self.left {
                chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= chunk.len() as u64;
            }
            if !chunk.is_empty() {
                return Poll::Ready(Some(Ok(chunk)));
            }
        }
    }

    /// The next chunk; `None` at a clean end.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, Broken>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(cell) = state.readers.get_mut(self.slot) {
            *cell = None;
        }
        state.forget_what_all_have();
        state.wake_writer();
    }
}

impl State {
    fn poll_chunk(
        &mut self,
        slot: usize,
        length: Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        let (dropped, end) = (self.dropped, self.end);
        let to_be_stored = self.allowance.is_some() && end == End::Open && length == Some(self.written);
        let given_out =
            self.dropped + self.chunks.len() - usize::from(to_be_stored && !self.chunks.is_empty());
        let Some(Some(place)) = self.readers.get_mut(slot) else {
            return Poll::Ready(Some(Err(Broken::Abandoned)));
        };
        let next = place
            .next
            .checked_sub(dropped)
            .filter(|_| place.next < given_out)
            .and_then(|at| self.chunks.get(at))
            .cloned();
        let Some(chunk) = next else {
            return match end {
                End::Open => {
                    place.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
                End::Whole => Poll::Ready(None),
                End::Broken(why) => Poll::Ready(Some(Err(why))),
            };
        };
        place.next += 1;
        place.read += chunk.len() as u64;
        if self.allowance.is_none() && end == End::Open {
            self.forget_what_all_have();
            self.wake_writer();
        }
        Poll::Ready(Some(Ok(chunk)))
    }

    fn push(&mut self, chunk: Bytes) {
        self.written += chunk.len() as u64;
        self.chunks.push_back(chunk);
        let outgrown = self
            .allowance
            .as_mut()
            .is_some_and(|allowance| !allowance.grow_to(self.written));
        if outgrown {
            self.allowance = None;
        }
        self.forget_what_all_have();
        self.wake_readers();
    }

    /// Puts slices of the whole, which is stored by now, in the place of the chunks, and gives the allowance back.
    fn share_whole(&mut self) {
        let mut whole = std::mem::take(&mut self.whole);
        if self.allowance.is_none() || whole.len() as u64 != self.written {
            return;
        }
        for chunk in &mut self.chunks {
            *chunk = whole.split_to(chunk.len());
        }
        self.allowance = None;
    }

    fn close(&mut self, end: End) {
        self.end = end;
        self.wake_readers();
    }

    fn has_room(&self) -> bool {
        if self.allowance.is_some() {
            return true;
        }
        let slowest = self
            .readers
            .iter()
            .flatten()
            .map(|place| place.read)
            .min()
            .unwrap_or(self.written);
        self.written.saturating_sub(slowest) < WINDOW_BYTES
    }

    fn is_wanted(&self) -> bool {
        self.allowance.is_some() || self.readers.iter().any(Option::is_some)
    }

    /// In a stream past, drops the chunks that every reader has.
    fn forget_what_all_have(&mut self) {
        if self.allowance.is_some() || self.end == End::Whole {
            return;
        }
        let all = self.dropped + self.chunks.len();
        let behind = self
            .readers
            .iter()
            .flatten()
            .map(|place| place.next)
            .min()
            .unwrap_or(all);
        while self.dropped < behind && self.chunks.pop_front().is_some() {
            self.dropped += 1;
        }
    }

    fn wake_readers(&mut self) {
        self.readers
            .iter_mut()
            .flatten()
            .filter_map(|place| place.waker.take())
            .for_each(Waker::wake);
    }

    fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::store::Budget;

    fn kept(length: Option<u64>) -> (Writer, Joiner) {
        open(length, Budget::new(1 << 20).reserve(0, 1 << 20))
    }

    async fn drained(mut reader: Reader) -> Result<Vec<u8>, Broken> {
        let mut all = Vec::new();
        while let Some(chunk) = reader.chunk().await {
            all.extend_from_slice(&chunk?);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn a_late_reader_gets_the_whole_and_a_lost_one_harms_nobody() {
        let (mut writer, joiner) = kept(Some(6));
        let early = joiner.join().unwrap();
        let lost = joiner.join().unwrap();
        assert!(writer.write(Bytes::from_static(b"abc")).await);
        drop(lost);
        assert!(writer.write(Bytes::from_static(b"def")).await);
        let late = joiner.join().unwrap();
        assert_eq!(writer.whole().unwrap().unwrap(), "abcdef");
        writer.finish();
        assert_eq!(drained(early).await.unwrap(), b"abcdef");
        assert_eq!(drained(late).await.unwrap(), b"abcdef");
        assert_eq!(drained(joiner.join().unwrap()).await.unwrap(), b"abcdef");
    }

    #[tokio::test]
    async fn the_last_bytes_wait_for_the_body_to_be_stored() {
        let (mut writer, joiner) = kept(Some(6));
        let mut reader = joiner.join().unwrap();
        writer.write(Bytes::from_static(b"abc")).await;
        writer.write(Bytes::from_static(b"def")).await;
        assert_eq!(reader.chunk().await.unwrap().unwrap(), "abc");
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), reader.chunk()).await;
        assert!(early.is_err(), "it is not stored yet");
        writer.whole().unwrap();
        writer.finish();
        assert_eq!(drained(reader).await.unwrap(), b"def");
    }

    #[tokio::test]
    async fn a_slow_reader_of_a_stored_body_holds_no_allowance() {
        let budget = Budget::new(100);
        let (mut writer, joiner) = open(Some(6), budget.reserve(6, 6));
        let slow = joiner.join().unwrap();
        writer.write(Bytes::from_static(b"abc")).await;
        writer.write(Bytes::from_static(b"def")).await;
        let stored = writer.whole().unwrap().unwrap();
        writer.finish();
        assert_eq!((budget.used(), stored), (0, Bytes::from_static(b"abcdef")));
        assert_eq!(drained(slow).await.unwrap(), b"abcdef");
    }

    #[tokio::test]
    async fn a_body_of_the_wrong_length_never_ends_cleanly() {
        let (mut writer, joiner) = kept(Some(6));
        writer.write(Bytes::from_static(b"abc")).await;
        assert_eq!(writer.whole(), Err(Broken::Origin));
        let reader = joiner.join().unwrap();
        writer.finish();
        assert_eq!(drained(reader).await, Err(Broken::Origin));
    }

    #[tokio::test]
    async fn a_narrowed_reader_gives_its_window_across_chunks() {
        let (mut writer, joiner) = kept(Some(9));
        let window = joiner.join().unwrap().narrowed(2, 5);
        assert_eq!(window.length(), Some(5));
        for chunk in [&b"abc"[..], b"def", b"ghi"] {
            writer.write(Bytes::from_static(chunk)).await;
        }
        writer.finish();
        assert_eq!(drained(window).await.unwrap(), b"cdefg");
    }

    #[tokio::test]
    async fn a_dropped_writer_breaks_the_body() {
        let (mut writer, joiner) = kept(None);
        writer.write(Bytes::from_static(b"abc")).await;
        drop(writer);
        assert_eq!(drained(joiner.join().unwrap()).await, Err(Broken::Abandoned));
    }

    #[tokio::test]
    async fn a_stream_past_waits_for_its_slowest_reader_and_then_forgets() {
        let (mut writer, joiner) = open(None, None);
        let mut reader = joiner.join().unwrap();
        let chunk = Bytes::from(vec![7; 512 * 1024]);
        assert!(writer.write(chunk.clone()).await);
        assert!(writer.write(chunk.clone()).await);
        let blocked =
            tokio::time::timeout(std::time::Duration::from_millis(20), writer.write(chunk.clone())).await;
        assert!(blocked.is_err(), "a window ahead");
        assert_eq!(reader.chunk().await.unwrap().unwrap().len(), chunk.len());
        assert!(writer.write(chunk.clone()).await);
        assert!(joiner.join().is_none(), "its start is gone");
        assert_eq!(writer.whole(), Ok(None));
        drop(reader);
        assert!(!writer.write(chunk).await, "nobody is left");
    }

    #[tokio::test]
    async fn a_body_that_outgrows_its_allowance_streams_past() {
        let budget = Budget::new(4);
        let (mut writer, joiner) = open(None, budget.reserve(0, 100));
        let reader = joiner.join().unwrap();
        assert!(writer.write(Bytes::from_static(b"abcd")).await);
        assert_eq!(budget.used(), 4);
        assert!(writer.write(Bytes::from_static(b"e")).await);
        assert_eq!(budget.used(), 0);
        assert!(writer.0.lock().allowance.is_none());
        writer.finish();
        assert_eq!(drained(reader).await.unwrap(), b"abcde");
    }

    #[tokio::test]
    async fn a_lazy_body_is_written_from_where_it_is_read() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let read = async |window: Option<(u64, u64)>| {
            let told = Arc::clone(&asked);
            let reader = lazy(Some(10), move |writer, first, length| {
                told.lock().unwrap().push((first, length));
                drop(writer);
            });
            let mut reader = match window {
                Some((first, length)) => reader.narrowed(first, length),
                None => reader,
            };
            let length = reader.length();
            assert!(asked.lock().unwrap().is_empty(), "not before it is read");
            let broken = reader.chunk().await;
            assert!(matches!(broken, Some(Err(Broken::Abandoned))), "{broken:?}");
            (length, asked.lock().unwrap().pop())
        };
        assert_eq!(read(None).await, (Some(10), Some((0, Some(10)))));
        assert_eq!(read(Some((4, 3))).await, (Some(3), Some((4, Some(3)))));
    }
}
