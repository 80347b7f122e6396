//! A body that is still arriving: one writer, many readers, each at its own place.
//!
//! While the body fits its allowance it is kept in one piece that grows, so that a reader may join at any time, a slow reader
//! slows nobody, and the whole can be stored at the end as it lies there. The last bytes are given out only then, so that
//! whoever has them all finds the body stored; and those who still read go on with the stored bytes. A body that outgrows its
//! allowance becomes a *stream past*: chunks are dropped once every reader has them, nobody can join any more, and the writer
//! waits for the slowest reader.

mod reader;
mod state;
mod writer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::reader::{Joiner, Reader};
pub use self::writer::Writer;

use self::state::State;
use super::store::Reservation;

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

#[derive(Debug)]
struct Shared {
    length: Option<u64>,
    state: Mutex<State>,
}

impl Shared {
    fn new(length: Option<u64>, state: State) -> Arc<Self> {
        Arc::new(Self {
            length,
            state: Mutex::new(state),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a body of `length` bytes, if that is known. `allowance` is what may be kept of it; `None` opens it as a
/// stream past that nothing is counted for.
pub fn open(length: Option<u64>, allowance: Option<Reservation>) -> (Writer, Joiner) {
    both(Shared::new(length, State::new(allowance)))
}

/// Opens a body as a stream past, which only the readers taken from the returned joiner before the first write can
/// follow. `room` is given back when the last of them is done.
pub fn past(length: Option<u64>, room: Reservation) -> (Writer, Joiner) {
    both(Shared::new(length, State::past(Some(room))))
}

fn both(shared: Arc<Shared>) -> (Writer, Joiner) {
    (Writer(Arc::clone(&shared)), Joiner(shared))
}

/// A reader of a body that is there already, elsewhere. When its first chunk is asked for, `begin` is given the writing
/// end, the first byte that is wanted, and how many are; it must not block. `room` is as in [`past`].
pub fn lazy(
    length: Option<u64>,
    room: Option<Reservation>,
    begin: impl FnOnce(Writer, u64, Option<u64>) + Send + Sync + 'static,
) -> Reader {
    let (writer, joiner) = both(Shared::new(None, State::past(room)));
    Reader::lazy(&joiner, length, move |first, length| begin(writer, first, length))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cache::store::{Budget, WINDOW_BYTES};

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
    async fn a_slow_reader_of_a_stored_body_counts_once_and_until_it_is_done() {
        let budget = Budget::new(100);
        let (mut writer, joiner) = open(Some(6), budget.reserve(6, 6));
        let slow = joiner.join().unwrap();
        writer.write(Bytes::from_static(b"abc")).await;
        writer.write(Bytes::from_static(b"def")).await;
        let stored = writer.whole().unwrap().unwrap();
        writer.finish();
        drop(joiner);
        assert_eq!((budget.used(), &*stored), (6, &b"abcdef"[..]), "it counts once");
        drop(stored);
        assert_eq!(budget.used(), 6, "evicted, and still read");
        assert_eq!(drained(slow).await.unwrap(), b"abcdef");
        assert_eq!(budget.used(), 0);
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
        let chunk = Bytes::from(vec![7; 64 * 1024]);
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
    async fn a_stream_past_that_is_a_window_ahead_goes_on_for_who_wants_what_comes_later() {
        let (mut writer, joiner) = open(Some(1_000_000), None);
        let window = joiner.join().unwrap().narrowed(700_000, 5);
        // In a task of its own: what is polled along with another is woken by accident.
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            writer.write(Bytes::from(vec![1; 700_000])).await;
            writer.write(Bytes::from_static(b"abcdefgh")).await
        });
        while joiner.0.lock().has_room() {
            tokio::task::yield_now().await;
        }
        let read = tokio::time::timeout(std::time::Duration::from_secs(20), drained(window)).await;
        assert_eq!(read.expect("nobody waits for ever").unwrap(), b"abcde");
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_holds_up_nobody_and_gives_its_room_back() {
        const SHORT: std::time::Duration = std::time::Duration::from_millis(20);
        let budget = Budget::new(4 * WINDOW_BYTES);
        let chunk = Bytes::from(vec![7; 64 * 1024]);
        let (mut writer, joiner) = past(None, budget.stream(None, 0).unwrap());
        let (mut idle, mut reader) = (joiner.join().unwrap(), joiner.join().unwrap());
        drop(joiner);
        for _ in 0..10 {
            assert!(writer.write_within(SHORT, chunk.clone()).await);
            assert_eq!(reader.chunk().await.unwrap().unwrap(), chunk);
        }
        let told = idle.chunk().await;
        assert!(matches!(told, Some(Err(Broken::Abandoned))), "{told:?}");
        assert!(budget.used() > 0);
        while writer.write_within(SHORT, chunk.clone()).await {}
        drop(writer);
        assert_eq!(
            budget.used(),
            0,
            "although their connections still hold the readers"
        );
        drop((idle, reader));
    }

    #[tokio::test]
    async fn a_long_chunk_streams_past_in_pieces_that_do_not_hold_it() {
        let (mut writer, joiner) = open(None, None);
        let mut reader = joiner.join().unwrap();
        let long: Vec<u8> = (0..1_000_000).map(|at| (at / 251 + at * 7) as u8).collect();
        let whole = Bytes::from(long.clone());
        let began = whole.as_ptr();
        let written = async {
            assert!(writer.write(whole).await);
            writer.finish();
        };
        let read = async {
            let mut all = Vec::new();
            while let Some(piece) = reader.chunk().await {
                let piece = piece.unwrap();
                assert!(piece.len() <= 64 * 1024, "{}", piece.len());
                assert!(piece.as_ptr() != began, "a copy");
                all.extend_from_slice(&piece);
            }
            all
        };
        let ((), all) = tokio::join!(written, read);
        assert!(all == long);
    }

    #[tokio::test]
    async fn a_body_that_outgrows_its_allowance_streams_past() {
        let budget = Budget::new(4);
        let (mut writer, joiner) = open(None, budget.reserve(0, 100));
        let reader = joiner.join().unwrap();
        assert!(writer.write(Bytes::from_static(b"abcd")).await);
        assert_eq!(budget.used(), 4);
        assert!(writer.write(Bytes::from_static(b"e")).await);
        assert_eq!(budget.used(), 4 + WINDOW_BYTES, "until it has been read");
        assert!(joiner.join().is_none(), "nobody can join any more");
        assert_eq!(writer.whole(), Ok(None));
        writer.finish();
        drop(joiner);
        assert_eq!(drained(reader).await.unwrap(), b"abcde");
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_lazy_body_is_written_from_where_it_is_read() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let read = async |window: Option<(u64, u64)>| {
            let told = Arc::clone(&asked);
            let reader = lazy(Some(10), None, move |writer, first, length| {
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

    #[tokio::test]
    async fn a_body_of_unknown_length_grows_within_its_allowance() {
        let budget = Budget::new(1 << 20);
        let (mut writer, joiner) = open(None, budget.reserve(0, 1 << 20));
        let mut reader = joiner.join().unwrap();
        let mut expected = Vec::new();
        for n in 0..100_u8 {
            let chunk = vec![n; 3_000];
            expected.extend_from_slice(&chunk);
            assert!(writer.write(Bytes::from(chunk)).await);
        }
        assert!(budget.used() >= 300_000);
        assert_eq!(reader.chunk().await.unwrap().unwrap(), &expected[..64 * 1024]);
        let whole = writer.whole().unwrap().unwrap();
        assert_eq!(
            (whole.len(), budget.used()),
            (300_000, 300_000),
            "nothing is held in reserve"
        );
        writer.finish();
        assert_eq!(drained(reader).await.unwrap(), &expected[64 * 1024..]);
    }

    #[tokio::test]
    async fn the_room_of_a_stream_past_is_given_back_by_the_last_who_reads_it() {
        let budget = Budget::new(2 * WINDOW_BYTES);
        let room = || budget.stream(None, WINDOW_BYTES / 2);
        let (mut writer, joiner) = past(Some(3), room().unwrap());
        let reader = joiner.join().unwrap();
        drop(joiner);
        assert!(room().is_none());
        assert!(writer.write(Bytes::from_static(b"abc")).await);
        writer.finish();
        assert!(room().is_none());
        assert_eq!(drained(reader).await.unwrap(), b"abc");
        assert!(room().is_some());
    }
}
