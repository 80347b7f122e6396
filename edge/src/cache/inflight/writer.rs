//! The writing end of a body that arrives.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::state::{End, PIECE_BYTES};
use super::{Broken, Shared};

/// How long a stream past waits for a reader that takes nothing. Connections have a deadline of their own; but one that makes
/// progress with other streams may leave this one alone for ever, and what is held for it is held from others.
const READER_PATIENCE: Duration = Duration::from_secs(120);

/// The writing end. Dropping it before [`Writer::finish`] breaks the body for all readers.
#[derive(Debug)]
pub struct Writer(pub(super) Arc<Shared>);

impl Writer {
    /// Appends `chunk`; waits while a stream past is a window ahead of its slowest reader, which is let go of when it takes
    /// nothing for two minutes.
    /// Returns `false` when nobody will ever read it: not kept, and no reader left.
    pub async fn write(&mut self, chunk: Bytes) -> bool {
        self.write_within(READER_PATIENCE, chunk).await
    }

    pub(super) async fn write_within(&mut self, patience: Duration, mut chunk: Bytes) -> bool {
        loop {
            match tokio::time::timeout(patience, self.take(&mut chunk)).await {
                Ok(is_wanted) => return is_wanted,
                Err(_) => self.0.lock().let_go_of_slowest(),
            }
        }
    }

    async fn take(&mut self, chunk: &mut Bytes) -> bool {
        let is_long = chunk.len() > PIECE_BYTES;
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock();
            while !chunk.is_empty() {
                if !state.has_room() {
                    state.wait_for_room(cx);
                    return Poll::Pending;
                }
                // A slow reader of a stream past holds pieces of its own, not the long buffers of the origin's connection.
                let piece = match is_long && state.is_past() {
                    true => Bytes::copy_from_slice(&chunk.split_to(chunk.len().min(PIECE_BYTES))),
                    false => std::mem::take(chunk),
                };
                state.push(piece, self.0.length);
                if !state.is_wanted() {
                    return Poll::Ready(false);
                }
            }
            Poll::Ready(state.is_wanted())
        })
        .await
    }

    /// The whole body, before its end is announced, so that it can be stored before anybody sees it end.
    /// `None` when it was not kept; an error when it is not as long as was announced.
    pub fn whole(&self) -> Result<Option<Bytes>, Broken> {
        let mut state = self.0.lock();
        match self.0.length {
            Some(length) if length != state.written() => Err(Broken::Origin),
            _ => Ok(state.whole()),
        }
    }

    /// Ends the body cleanly; broken after all when it is not as long as was announced.
    pub fn finish(self) {
        let mut state = self.0.lock();
        let complete = self.0.length.is_none_or(|length| length == state.written());
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
        self.0.lock().written()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.lock().abandon();
    }
}
