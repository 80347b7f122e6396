//! How a body that arrives stands: what is held of it, where its readers are, and whether it has ended.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::Broken;
use crate::cache::store::{self, Reservation};

/// How far ahead of its slowest reader a stream past may run, in bytes.
pub(super) const WINDOW_BYTES: u64 = 128 * 1024;

/// What a reader is given at once of a body that is kept and still grows: a copy.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// What a reader is given at once of a body that is there: no copy.
const SLICE_BYTES: usize = 256 * 1024;

/// A body of unknown length begins with so much room.
const ROOM_BYTES: u64 = 16 * 1024;

/// How the body stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Open,
    Whole,
    Broken(Broken),
}

#[derive(Debug)]
pub(super) struct State {
    held: Held,
    /// Bytes written so far.
    written: u64,
    /// Bytes of the last chunk.
    last: u64,
    end: End,
    /// How far each reader is, by slot.
    readers: Vec<Option<Place>>,
    writer: Option<Waker>,
}

/// What is held of a body.
#[derive(Debug)]
enum Held {
    /// All of it, growing.
    Kept { bytes: Vec<u8>, allowance: Reservation },
    /// What some reader has not had yet, from the byte `first` on.
    Past {
        chunks: VecDeque<Bytes>,
        first: u64,
        _room: Option<Reservation>,
    },
    /// All of it; it carries its reservation.
    Whole(Bytes),
}

#[derive(Debug, Default)]
struct Place {
    read: u64,
    waker: Option<Waker>,
    /// It took nothing for too long, and has been let go of.
    lost: bool,
}

impl State {
    /// Of a body that is kept within `allowance`, if there is any.
    pub(super) fn new(allowance: Option<Reservation>) -> Self {
        let bytes = Vec::new();
        match allowance {
            None => Self::past(None),
            Some(allowance) => Self::of(Held::Kept { bytes, allowance }),
        }
    }

    /// Of a stream past.
    pub(super) fn past(room: Option<Reservation>) -> Self {
        Self::of(Held::Past {
            chunks: VecDeque::new(),
            first: 0,
            _room: room,
        })
    }

    fn of(held: Held) -> Self {
        Self {
            held,
            written: 0,
            last: 0,
            end: End::Open,
            readers: Vec::new(),
            writer: None,
        }
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// A reader's slot, if the body's start is still there.
    pub(super) fn join(&mut self) -> Option<usize> {
        if let Held::Past { first, .. } = self.held
            && (first > 0 || (self.written > 0 && self.end == End::Open))
        {
            return None;
        }
        Some(self.add_reader())
    }

    pub(super) fn add_reader(&mut self) -> usize {
        let place = Some(Place::default());
        match self.readers.iter().position(Option::is_none) {
            Some(free) => {
                if let Some(cell) = self.readers.get_mut(free) {
                    *cell = place;
                }
                free
            }
            None => {
                self.readers.push(place);
                self.readers.len() - 1
            }
        }
    }

    pub(super) fn leave(&mut self, slot: usize) {
        if let Some(cell) = self.readers.get_mut(slot) {
            *cell = None;
        }
        self.forget_what_all_have();
        self.wake_writer();
    }

    /// The next piece for the reader in `slot`, which passes over `skip` bytes before.
    pub(super) fn poll_chunk(
        &mut self,
        slot: usize,
        length: Option<u64>,
        skip: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        let is_past = matches!(self.held, Held::Past { .. });
        // The last bytes wait until the body is stored.
        let to_be_stored = !is_past && self.end == End::Open && length == Some(self.written);
        let given_out = self.written - if to_be_stored { self.last } else { 0 };
        if skip > 0 {
            self.advance(slot, skip);
        }
        let place = match self.readers.get_mut(slot) {
            Some(Some(place)) if !place.lost => place,
            _ => return Poll::Ready(Some(Err(Broken::Abandoned))),
        };
        let Some(piece) = self.held.piece(place.read, given_out) else {
            return match self.end {
                End::Open => {
                    place.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
                End::Whole => Poll::Ready(None),
                End::Broken(why) => Poll::Ready(Some(Err(why))),
            };
        };
        self.advance(slot, piece.len() as u64);
        Poll::Ready(Some(Ok(piece)))
    }

    /// The reader in `slot` has had `bytes` more, or does not want them: a writer who waits for it has room.
    fn advance(&mut self, slot: usize, bytes: u64) {
        if let Some(Some(place)) = self.readers.get_mut(slot) {
            place.read = place.read.saturating_add(bytes);
        }
        if self.is_past() && self.end == End::Open {
            self.forget_what_all_have();
            self.wake_writer();
        }
    }

    pub(super) fn has_room(&self) -> bool {
        !matches!(self.held, Held::Past { .. }) || self.written.saturating_sub(self.slowest()) < WINDOW_BYTES
    }

    pub(super) fn is_past(&self) -> bool {
        matches!(self.held, Held::Past { .. })
    }

    pub(super) fn wait_for_room(&mut self, cx: &Context<'_>) {
        self.writer = Some(cx.waker().clone());
    }

    pub(super) fn is_wanted(&self) -> bool {
        !matches!(self.held, Held::Past { .. }) || self.places().next().is_some()
    }

    pub(super) fn push(&mut self, chunk: Bytes, length: Option<u64>) {
        if !self.held.keep(&chunk, length) {
            self.let_pass();
        }
        self.written += chunk.len() as u64;
        self.last = chunk.len() as u64;
        if let Held::Past { chunks, .. } = &mut self.held {
            chunks.push_back(chunk);
            self.forget_what_all_have();
        }
        self.readers
            .iter_mut()
            .flatten()
            .filter_map(|place| place.waker.take())
            .for_each(Waker::wake);
    }

    /// All of it, when it was kept.
    pub(super) fn whole(&mut self) -> Option<Bytes> {
        let held = std::mem::replace(&mut self.held, Held::Whole(Bytes::new()));
        self.held = match held {
            Held::Kept { bytes, allowance } => Held::Whole(allowance.hold(bytes)),
            held => held,
        };
        match &self.held {
            Held::Whole(bytes) => Some(bytes.clone()),
            Held::Kept { .. } | Held::Past { .. } => None,
        }
    }

    pub(super) fn close(&mut self, end: End) {
        self.end = end;
        for place in self.readers.iter_mut().flatten() {
            if let Some(waker) = place.waker.take() {
                waker.wake();
            }
        }
    }

    /// The writer is gone, and has not said how the body ends.
    pub(super) fn abandon(&mut self) {
        if self.end == End::Open {
            self.close(End::Broken(Broken::Abandoned));
        }
    }

    /// From here on it streams past: what came is held until the readers have it.
    fn let_pass(&mut self) {
        let slowest = self.slowest().min(self.written);
        let held = std::mem::replace(&mut self.held, Held::Whole(Bytes::new()));
        self.held = match held {
            Held::Kept { bytes, allowance } => {
                let room = allowance.budget().count(store::WINDOW_BYTES);
                let mut rest = allowance.hold(bytes);
                let had = usize::try_from(slowest).unwrap_or(usize::MAX).min(rest.len());
                drop(rest.split_to(had));
                Held::Past {
                    chunks: VecDeque::from([rest]),
                    first: slowest,
                    _room: Some(room),
                }
            }
            held => held,
        };
    }

    fn slowest(&self) -> u64 {
        let places = self.places().map(|place| place.read);
        places.min().unwrap_or(self.written)
    }

    /// Where the readers are that still count.
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.readers.iter().flatten().filter(|place| !place.lost)
    }

    /// Lets go of the reader for which a stream past waits. When it was the last one, what was held for it is free.
    pub(super) fn let_go_of_slowest(&mut self) {
        let slowest = self.slowest();
        for place in self.readers.iter_mut().flatten() {
            place.lost |= place.read == slowest;
        }
        self.forget_what_all_have();
        if self.places().next().is_none()
            && let Held::Past { _room, .. } = &mut self.held
        {
            *_room = None;
        }
    }

    /// In a stream past, drops the chunks that every reader has.
    fn forget_what_all_have(&mut self) {
        if self.end == End::Whole {
            return;
        }
        let slowest = self.slowest();
        let Held::Past { chunks, first, .. } = &mut self.held else {
            return;
        };
        while let Some(chunk) = chunks.front()
            && *first + chunk.len() as u64 <= slowest
        {
            *first += chunk.len() as u64;
            chunks.pop_front();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

impl Held {
    /// Takes `chunk` in, if all of it is kept; `false` when it becomes too much for that, or is a stream past anyway.
    fn keep(&mut self, chunk: &[u8], length: Option<u64>) -> bool {
        let Self::Kept { bytes, allowance } = self else {
            return matches!(self, Self::Past { .. });
        };
        let needed = (bytes.len() + chunk.len()) as u64;
        if needed > bytes.capacity() as u64 {
            let wanted = length.unwrap_or((2 * needed).max(ROOM_BYTES)).max(needed);
            let granted = [wanted, needed].into_iter().find(|room| allowance.grow_to(*room));
            let Some(granted) = granted else {
                return false;
            };
            let more = usize::try_from(granted).unwrap_or(0).saturating_sub(bytes.len());
            bytes.reserve_exact(more);
        }
        bytes.extend_from_slice(chunk);
        true
    }

    /// The next piece from `at` on, of what may be given out.
    fn piece(&self, at: u64, given_out: u64) -> Option<Bytes> {
        let left = given_out.checked_sub(at).filter(|left| *left > 0)?;
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        match self {
            Self::Kept { bytes, .. } => {
                let at = usize::try_from(at).ok()?;
                let piece = bytes.get(at..at + left.min(PIECE_BYTES))?;
                Some(Bytes::copy_from_slice(piece))
            }
            Self::Whole(bytes) => {
                let at = usize::try_from(at).ok()?;
                Some(bytes.slice(at..at + left.min(SLICE_BYTES)))
            }
            Self::Past { chunks, first, .. } => {
                let mut begins = *first;
                for chunk in chunks {
                    let ends = begins + chunk.len() as u64;
                    if at < ends {
                        let skip = usize::try_from(at.checked_sub(begins)?).ok()?;
                        return Some(chunk.slice(skip..));
                    }
                    begins = ends;
                }
                None
            }
        }
    }
}
