//! HTTP/2 over hyper and h2.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::Answer;
use super::io::{Link, SharedLink};
use super::pulse::{Closed, Verdict};
use super::service::Visit;
use crate::config::Limits;
use crate::drain::{Drain, panic_message};

/// The receive windows: no request has content that anybody reads, so the smallest that clients get along with.
const STREAM_WINDOW_BYTES: u32 = 16 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 65_535;

/// Content that h2 may hold of one stream. Bodies are shared bytes, so this counts references, not copies.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

pub(super) fn builder(limits: &Limits, drain: &Drain) -> Builder<Streams> {
    let mut builder = Builder::new(Streams(drain.clone()));
    builder
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(16 * 1024)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.h2_resets)
        // A client that opens more streams than allowed before it has read our settings is refused each of them, and
        // that is no fault of its own.
        .max_local_error_reset_streams(limits.h2_resets + limits.h2_streams as usize);
    builder
}

/// Serves one connection.
pub(super) async fn serve<A: Answer>(
    builder: &Builder<Streams>,
    link: Link,
    visit: Arc<Visit<A>>,
) -> Result<(), hyper::Error> {
    let pulse = Arc::clone(&visit.pulse);
    let link = SharedLink::new(link);
    let service = service_fn(move |request| visit.answer(request));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(link.clone()), service));
    let mut wound = false;
    std::future::poll_fn(|cx| {
        pulse.listen(cx);
        match pulse.verdict() {
            Some(Verdict::End(Closed::Stalled | Closed::Refused)) => return Poll::Ready(Ok(())),
            Some(Verdict::End(_)) => {
                let _ = connection.as_mut().poll(cx);
                return Poll::Ready(Ok(()));
            }
            Some(Verdict::Wind(_)) if !wound => {
                wound = true;
                connection.as_mut().graceful_shutdown();
            }
            _ => {}
        }
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        // h2 flushes after every frame; all that one poll has put aside leaves here in as few writes as it takes.
        match ready!(link.poll_release(cx)) {
            Ok(()) => Poll::Pending,
            Err(_) => Poll::Ready(Ok(())),
        }
    })
    .await
}

/// Runs the streams of connections. Most are answered in the first poll, which happens on the spot; only the rest
/// become tasks.
#[derive(Clone, Debug)]
pub(super) struct Streams(Drain);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut stream = Box::pin(stream);
        // A task polls what it is given at once, and so registers a waker in place of this one.
        let mut cx = Context::from_waker(Waker::noop());
        match catch_unwind(AssertUnwindSafe(|| stream.as_mut().poll(&mut cx))) {
            Ok(Poll::Ready(())) => {}
            Ok(Poll::Pending) => self.0.spawn("h2-stream", stream),
            Err(panic) => {
                self.0.count_panic();
                tracing::error!(message = panic_message(&*panic), "a stream panicked");
            }
        }
    }
}
