//! The body of a response on its way out.
//!
//! It ends cleanly only when every byte was handed over. It writes its record exactly once: at its end, wherever that is.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::pulse::UnderWay;
use crate::cache::inflight::{Broken, Reader};
use crate::exchange::message::Body;
use crate::exchange::record::{End, Record};

/// Whole bodies leave in pieces of this size, so that a record is not written long before the client has the bytes.
/// One piece is enough for nearly every response.
const PIECE_BYTES: usize = 256 * 1024;

/// A body for hyper.
#[derive(Debug)]
pub(super) struct Outgoing {
    source: Source,
    /// Bytes still to come, where the length is known.
    left: Option<u64>,
    sent: u64,
    broken: bool,
    record: Option<Box<Record>>,
    under_way: UnderWay,
}

#[derive(Debug)]
enum Source {
    Done,
    Full(Bytes),
    Parts(VecDeque<Bytes>),
    Inflight(Reader),
}

impl Outgoing {
    pub(super) fn new(body: Body, record: Box<Record>, mut under_way: UnderWay) -> Self {
        under_way.set_on_us(false);
        let left = body.length();
        let source = match body {
            Body::Empty => Source::Done,
            Body::Full(bytes) => Source::Full(bytes),
            Body::Parts(parts) => Source::Parts(parts),
            Body::Inflight(reader) => Source::Inflight(reader),
        };
        let source = if left == Some(0) { Source::Done } else { source };
        Self {
            source,
            left,
            sent: 0,
            broken: false,
            record: Some(record),
            under_way,
        }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let next = match &mut self.source {
            Source::Done => None,
            Source::Full(rest) => Some(Ok(rest.split_to(rest.len().min(PIECE_BYTES)))),
            Source::Parts(parts) => loop {
                match parts.pop_front() {
                    Some(part) if part.is_empty() => {}
                    part => break part.map(Ok),
                }
            },
            Source::Inflight(reader) => {
                let polled = reader.poll_chunk(cx);
                self.under_way.set_on_us(polled.is_pending());
                match polled {
                    Poll::Ready(chunk) => chunk,
                    Poll::Pending => return Poll::Pending,
                }
            }
        };
        Poll::Ready(next)
    }

    /// Counts a piece. A body longer than its length is as broken as one that is shorter.
    fn count(&mut self, piece: &Bytes) -> Result<(), Broken> {
        let length = piece.len() as u64;
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(length).ok_or(Broken::Origin)?;
        }
        self.sent += length;
        if self.left == Some(0) {
            self.source = Source::Done;
        }
        Ok(())
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let next = match self.next(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(piece))) => self.count(&piece).map(|()| Some(piece)),
            Poll::Ready(Some(Err(why))) => Err(why),
            Poll::Ready(None) if self.left.is_some_and(|left| left > 0) => Err(Broken::Origin),
            Poll::Ready(None) => Ok(None),
        };
        Poll::Ready(match next {
            Ok(Some(piece)) => Some(Ok(Frame::data(piece))),
            Ok(None) => {
                self.source = Source::Done;
                None
            }
            Err(why) => {
                self.broken = true;
                self.source = Source::Done;
                Some(Err(why))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Done) && !self.broken
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let end = match self.source {
            _ if self.broken => End::Broken,
            // hyper asks for a piece before the client has room for it.
            Source::Done if self.sent == 0 || !self.under_way.is_cut() => End::Whole,
            _ => End::ClientGone,
        };
        if let Some(record) = self.record.take() {
            record.finish(self.sent, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http_body::Body as _;
    use http_body_util::BodyExt;

    use super::super::Protocol;
    use super::super::pulse::Pulse;
    use super::*;
    use crate::cache::inflight;
    use crate::cache::store::Budget;

    type Told = Arc<Mutex<Vec<(u64, End)>>>;

    fn outgoing(body: Body) -> (Outgoing, Told, Arc<Pulse>) {
        let told = Told::default();
        let (writes, pulse) = (Arc::clone(&told), Pulse::new(Protocol::H1));
        let record = Record::observed(move |sent, end| writes.lock().unwrap().push((sent, end)));
        (Outgoing::new(body, record, UnderWay::begin(&pulse)), told, pulse)
    }

    async fn frames(body: &mut Outgoing) -> Vec<Result<usize, Broken>> {
        let mut frames = Vec::new();
        while let Some(frame) = body.frame().await {
            frames.push(frame.map(|frame| frame.into_data().unwrap().len()));
        }
        frames
    }

    #[tokio::test]
    async fn a_full_body_is_one_frame_and_a_large_one_leaves_in_pieces() {
        let (mut body, told, pulse) = outgoing(Body::Full(Bytes::from_static(b"hello")));
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(5));
        assert_eq!(frames(&mut body).await, [Ok(5)]);
        assert_eq!(pulse.signs().under_way, 1);
        drop(body);
        assert_eq!(*told.lock().unwrap(), [(5, End::Whole)]);
        assert_eq!(pulse.signs().under_way, 0);

        let (mut body, told, _) = outgoing(Body::Full(Bytes::from(vec![0; PIECE_BYTES * 2 + 1])));
        body.frame().await.unwrap().unwrap();
        assert_eq!(
            http_body::Body::size_hint(&body).exact(),
            Some(PIECE_BYTES as u64 + 1)
        );
        drop(body);
        assert_eq!(*told.lock().unwrap(), [(PIECE_BYTES as u64, End::ClientGone)]);
    }

    #[tokio::test]
    async fn parts_leave_in_order_and_empty_ones_are_no_end() {
        let parts = [&b"a"[..], b"", b"bc", b""].map(Bytes::from_static);
        let (mut body, told, _) = outgoing(Body::Parts(parts.into()));
        assert_eq!(frames(&mut body).await, [Ok(1), Ok(2)]);
        assert!(http_body::Body::is_end_stream(&body));
        drop(body);
        assert_eq!(*told.lock().unwrap(), [(3, End::Whole)]);
    }

    #[tokio::test]
    async fn a_body_that_breaks_never_ends_cleanly() {
        let (mut writer, joiner) = inflight::open(None, Budget::new(100).reserve(0, 100));
        let (mut body, told, pulse) = outgoing(Body::Inflight(joiner.join().unwrap()));
        let waiting = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx).is_pending()));
        assert!(waiting.await);
        assert_eq!(pulse.signs().on_us, 1);
        writer.write(Bytes::from_static(b"half")).await;
        writer.fail(Broken::Origin);
        assert_eq!(frames(&mut body).await, [Ok(4), Err(Broken::Origin)]);
        assert!(!http_body::Body::is_end_stream(&body));
        drop(body);
        assert_eq!(*told.lock().unwrap(), [(4, End::Broken)]);
    }

    #[test]
    fn an_empty_body_is_done_at_once() {
        let (body, told, _) = outgoing(Body::Full(Bytes::new()));
        assert!(http_body::Body::is_end_stream(&body));
        drop(body);
        assert_eq!(*told.lock().unwrap(), [(0, End::Whole)]);
    }
}
