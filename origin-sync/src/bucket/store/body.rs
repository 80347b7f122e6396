//! A body that is being read: 64 KiB at a time, from a file that stays readable even if the object is replaced.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use s3s::StdError;
use s3s::stream::{ByteStream, RemainingLength};
use tokio::task::JoinHandle;

use super::{StoreError, blocking};

/// A stream of the bytes of an object, or of a range of them.
#[derive(Debug)]
pub struct Body {
    remaining: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The next piece is at hand.
    Ready(File, Bytes),
    /// A thread reads the next piece.
    Reading(JoinHandle<io::Result<(File, Bytes)>>),
    /// Nothing more comes.
    Ended,
}

const PIECE_BYTES: u64 = 64 * 1024;

impl Body {
    /// Opens the file and reads the first piece, in one visit to the disk.
    pub(super) async fn open(path: PathBuf, range: Range<u64>) -> Result<Self, StoreError> {
        let remaining = range.end.saturating_sub(range.start);
        if remaining == 0 {
            return Ok(Self {
                remaining,
                state: State::Ended,
            });
        }
        let first = move || open_at(&path, range.start).and_then(|file| piece(file, remaining));
        let (file, bytes) = blocking(move || {
            first().map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => StoreError::Vanished,
                _ => StoreError::Disk("read a body", error),
            })
        })
        .await?;
        Ok(Self {
            remaining,
            state: State::Ready(file, bytes),
        })
    }

    /// How many bytes are still to come.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The next piece.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        std::future::poll_fn(|cx| self.poll_piece(cx)).await
    }

    /// All of it.
    pub(super) async fn collect(mut self) -> Result<Bytes, StoreError> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await {
            all.extend_from_slice(&piece.map_err(|error| StoreError::Disk("read a body", error))?);
        }
        Ok(Bytes::from(all))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Ready(file, bytes) => {
                    self.remaining = self.remaining.saturating_sub(bytes.len() as u64);
                    let remaining = self.remaining;
                    if remaining > 0 {
                        // Reading ahead by one piece lets the disk work while the socket does.
                        let next = tokio::task::spawn_blocking(move || piece(file, remaining));
                        self.state = State::Reading(next);
                    }
                    return Poll::Ready(Some(Ok(bytes)));
                }
                State::Reading(mut task) => {
                    let Poll::Ready(result) = Pin::new(&mut task).poll(cx) else {
                        self.state = State::Reading(task);
                        return Poll::Pending;
                    };
                    match result.map_err(io::Error::other).flatten() {
                        Ok((file, bytes)) => self.state = State::Ready(file, bytes),
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    }
                }
            }
        }
    }
}

impl Stream for Body {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(ready!(self.poll_piece(cx)).map(|piece| piece.map_err(StdError::from)))
    }
}

impl ByteStream for Body {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(usize::try_from(self.remaining).unwrap_or(usize::MAX))
    }
}

fn open_at(path: &Path, start: u64) -> io::Result<File> {
    let mut file = File::open(path)?;
    if start > 0 {
        file.seek(SeekFrom::Start(start))?;
    }
    Ok(file)
}

/// Reads one piece. A file that ends too early is an error: a body never ends cleanly unless it is whole.
fn piece(mut file: File, remaining: u64) -> io::Result<(File, Bytes)> {
    let mut bytes = Vec::new();
    let wanted = remaining.min(PIECE_BYTES);
    bytes.reserve_exact(usize::try_from(wanted).unwrap_or_default());
    (&mut file).take(wanted).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != wanted {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((file, Bytes::from(bytes)))
}
