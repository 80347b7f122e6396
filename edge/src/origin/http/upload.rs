//! The content of a request on its way to a server: bounded, at a decent pace, and as fast as the server takes it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use tokio::time::Sleep;

use crate::clock::{Clock, Timestamp};
use crate::origin::pace::{Pace, WINDOW_DEADLINES};

/// Why content did not come whole: always the client's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadFault {
    /// The client broke off.
    #[error("the content ended early")]
    Broken = 1,
    /// Nothing more came for too long, or hardly anything.
    #[error("the content does not go on")]
    Stalled = 2,
    /// There is more of it than is allowed.
    #[error("the content is larger than allowed")]
    TooLarge = 3,
}

/// Content that is passed on.
#[derive(Debug)]
pub struct Upload {
    body: BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>,
    left: u64,
    stall: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waits_since: Option<Timestamp>,
    pace: Pace,
    clock: Clock,
    course: Course,
}

/// How an upload goes, for those who wait for its answer.
#[derive(Clone, Debug, Default)]
pub struct Course(Arc<Marks>);

#[derive(Debug, Default)]
struct Marks {
    moved: AtomicU64,
    waits: AtomicBool,
    fault: AtomicU8,
}

impl Course {
    /// What went wrong, if anything did.
    pub fn fault(&self) -> Option<UploadFault> {
        let faults = [UploadFault::Broken, UploadFault::Stalled, UploadFault::TooLarge];
        let code = self.0.fault.load(Ordering::Acquire);
        faults.into_iter().find(|fault| *fault as u8 == code)
    }

    /// Bytes that have gone out.
    pub(super) fn moved(&self) -> u64 {
        self.0.moved.load(Ordering::Relaxed)
    }

    /// Whether the next step is the client's.
    pub(super) fn waits(&self) -> bool {
        self.0.waits.load(Ordering::Relaxed)
    }
}

impl Upload {
    /// Content out of `body`: at most `bytes_max`, and never nothing for as long as `stall`.
    pub fn new(
        body: BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>,
        bytes_max: u64,
        stall: Duration,
        clock: Clock,
    ) -> Self {
        Self {
            body,
            left: bytes_max,
            stall,
            timer: None,
            waits_since: None,
            pace: Pace::default(),
            clock,
            course: Course::default(),
        }
    }

    /// How it goes from here on.
    pub fn course(&self) -> Course {
        self.course.clone()
    }

    fn fail(&self, fault: UploadFault) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        self.course.0.fault.store(fault as u8, Ordering::Release);
        Poll::Ready(Some(Err(fault)))
    }

    fn take(&mut self, data: Bytes) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let length = data.len() as u64;
        let Some(left) = self.left.checked_sub(length) else {
            return self.fail(UploadFault::TooLarge);
        };
        self.left = left;
        self.timer = None;
        let waited = self.waits_since.take().map(|since| self.clock.now().since(since));
        let window = self.stall.saturating_mul(WINDOW_DEADLINES);
        if self.pace.is_stalled(waited.unwrap_or_default(), length, window) {
            return self.fail(UploadFault::Stalled);
        }
        self.course.0.waits.store(false, Ordering::Relaxed);
        self.course.0.moved.fetch_add(length, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        self.course.0.waits.store(true, Ordering::Relaxed);
        if self.waits_since.is_none() {
            self.waits_since = Some(self.clock.now());
        }
        let stall = self.stall;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => self.fail(UploadFault::Stalled),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return self.wait(cx),
                Poll::Ready(None) => {
                    self.course.0.waits.store(false, Ordering::Relaxed);
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(_))) => return self.fail(UploadFault::Broken),
                Poll::Ready(Some(Ok(frame))) => {
                    // What is no data is a trailer section: it does not go on (RFC 9110 6.5.1).
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return self.take(data);
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
