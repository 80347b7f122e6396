//! A body on its way in. One that comes without a length is read ahead a little, so that small ones have a length after
//! all and are kept like any other; a large one is known for what it is before anybody is promised a place at its start.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::cache::store::{Budget, Reservation};
use crate::origin::s3::Proof;
use crate::origin::{self, Error};

/// How much of a body without a length is read before its head goes on.
const AHEAD_BYTES_MAX: u64 = 1024 * 1024;

/// How long its head waits for that: what comes slowly by nature, as events do, is not kept from those who wait for it.
const AHEAD_PATIENCE: Duration = Duration::from_secs(10);

/// A body, and how much of it was read already.
#[derive(Debug)]
pub(super) struct Incoming {
    begun: VecDeque<Bytes>,
    /// What was read ahead counts until it has gone on.
    room: Option<Reservation>,
    body: origin::Body,
}

impl Incoming {
    /// The body, and its length: the announced one, or if `read_ahead` what there was of it. Without either it is too long to be known,
    /// or there is no room in `budget` to find out.
    pub(super) async fn open(
        mut body: origin::Body,
        length: Option<u64>,
        read_ahead: bool,
        budget: &Budget,
    ) -> Result<(Self, Option<u64>), Error> {
        let mut begun = VecDeque::new();
        let is_empty = matches!(body, origin::Body::Empty);
        let wanted = read_ahead && length.is_none() && !is_empty;
        let ahead = AHEAD_BYTES_MAX.min(budget.capacity() / 16);
        let room = wanted.then(|| budget.keep(ahead, ahead)).flatten();
        let mut length = length.or(is_empty.then_some(0));
        let mut read = 0;
        let mut patience = std::pin::pin!(tokio::time::sleep(AHEAD_PATIENCE));
        while room.is_some() && length.is_none() && read < ahead {
            let next = tokio::select! {
                next = body.chunk() => next,
                () = patience.as_mut() => break,
            };
            match next.transpose()? {
                None => length = Some(read),
                Some(chunk) => {
                    read += chunk.len() as u64;
                    begun.push_back(chunk);
                }
            }
        }
        Ok((Self { begun, room, body }, length))
    }

    /// A body of which nothing was read yet, and whose length is known.
    pub(super) fn of(body: origin::Body) -> Self {
        Self {
            begun: VecDeque::new(),
            room: None,
            body,
        }
    }

    /// What is left to be checked of it, when it is not read on.
    pub(super) fn into_proof(self) -> Option<Proof> {
        self.body.into_proof()
    }

    /// What its connection may hold ready of it.
    pub(super) fn ahead_bytes(&self) -> u64 {
        self.body.ahead_bytes()
    }

    /// The next chunk; `None` at a clean end.
    pub(super) async fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        match self.begun.pop_front() {
            Some(chunk) => Some(Ok(chunk)),
            None => {
                self.room = None;
                self.body.chunk().await
            }
        }
    }
}
