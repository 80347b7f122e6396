//! The content of a request on its way in: handed over as it comes, and counted, so that the connection's budget and
//! deadlines know it from a flood.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::pulse::Pulse;

/// What a piece of content may cost beside its bytes: a frame's head, or a chunk's line.
const PIECE_OVERHEAD: u64 = 16;

/// Content as a connection brings it.
#[derive(Debug)]
pub(super) struct Arriving {
    incoming: Incoming,
    pulse: Arc<Pulse>,
    end: End,
}

/// Whether the content has been read to its end.
#[derive(Clone, Debug, Default)]
pub(super) struct End(Arc<AtomicBool>);

impl End {
    pub(super) fn has_come(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Arriving {
    pub(super) fn new(incoming: Incoming, pulse: Arc<Pulse>, end: End) -> Self {
        Self { incoming, pulse, end }
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                // What brings nothing pays for nothing.
                if bytes > 0 {
                    self.pulse.count_content(bytes + PIECE_OVERHEAD);
                }
                if self.incoming.is_end_stream() {
                    self.end.0.store(true, Ordering::Release);
                }
            }
            None => self.end.0.store(true, Ordering::Release),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
