//! The reading ends of a body that arrives, and the handle by which they join.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Broken, Shared};

/// A handle by which readers join while the body is still kept whole.
#[derive(Clone, Debug)]
pub struct Joiner(pub(super) Arc<Shared>);

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

impl Joiner {
    /// A reader at the body's start; `None` when its start is gone.
    pub fn join(&self) -> Option<Reader> {
        let slot = self.0.lock().join()?;
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
    /// The one reader of a body that `begin` begins to write.
    pub(super) fn lazy(
        joiner: &Joiner,
        length: Option<u64>,
        begin: impl FnOnce(u64, Option<u64>) + Send + Sync + 'static,
    ) -> Self {
        let begin = Box::new(begin);
        let lazy = Some(Lazy { length, begin });
        let slot = joiner.0.lock().add_reader();
        Self {
            shared: Arc::clone(&joiner.0),
            lazy,
            slot,
            skip: 0,
            left: None,
        }
    }

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
        if self.left == Some(0) {
            return Poll::Ready(None);
        }
        let (length, skip) = (self.shared.length, std::mem::take(&mut self.skip));
        let next = std::task::ready!(self.shared.lock().poll_chunk(self.slot, length, skip, cx));
        let Some(Ok(mut chunk)) = next else {
            return Poll::Ready(next);
        };
        if let Some(left) = &mut self.left {
            chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= chunk.len() as u64;
        }
        Poll::Ready(Some(Ok(chunk)))
    }

    /// The next chunk; `None` at a clean end.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, Broken>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.lock().leave(self.slot);
    }
}
