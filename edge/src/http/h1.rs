//! HTTP/1.1 and HTTP/1.0 over hyper.
//!
//! hyper keeps its buffers, 18 KiB of them, for as long as a connection is open. So a connection that has been quiet for a
//! while is taken out of hyper's hands until its client says something more.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::Answer;
use super::io::Link;
use super::pulse::{Closed, Pulse, Verdict};
use super::service::Visit;
use crate::config::Limits;

/// hyper keeps room for so many fields on the stack; any other number costs an allocation per request.
const FIELDS_ON_STACK: usize = 100;

/// The smallest read buffer that hyper takes.
const BUFFER_BYTES_MIN: usize = 8 * 1024;

/// hyper's parser, as strict as it can be made: its defaults already refuse folded lines, space before a colon and
/// repeated spaces in the request line. Its own header timer is off; the watchdog keeps that deadline.
pub(super) fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .header_read_timeout(None)
        // A client may close its sending side after its last request and still wait for the answer.
        .half_close(true)
        .max_header_size(limits.header_bytes)
        // One byte more than a header block may have, so that the size check answers before the buffer is full.
        .max_buf_size((limits.header_bytes + 1).max(BUFFER_BYTES_MIN));
    // Below the number on the stack, the validator counts.
    if limits.header_count > FIELDS_ON_STACK {
        builder.max_headers(limits.header_count);
    }
    builder
}

/// Serves one connection.
pub(super) async fn serve<A: Answer>(
    builder: &Builder,
    mut link: Link,
    visit: Arc<Visit<A>>,
) -> Result<(), hyper::Error> {
    loop {
        link = match spell(builder, link, &visit).await {
            ControlFlow::Break(result) => return result,
            ControlFlow::Continue(link) => link,
        };
        visit.metrics.dozed.inc();
        doze(&link, &visit.pulse).await;
    }
}

/// Serves requests until the connection is over, or nothing is under way and nothing has come for a while.
async fn spell<A: Answer>(
    builder: &Builder,
    link: Link,
    visit: &Arc<Visit<A>>,
) -> ControlFlow<Result<(), hyper::Error>, Link> {
    let (pulse, visit) = (&visit.pulse, Arc::clone(visit));
    let service = service_fn(move |request| visit.answer(request));
    // Boxed, so that it takes no room in the task while there is none.
    let mut connection = Box::new(builder.serve_connection(TokioIo::new(link), service));
    let mut wound = false;
    let over = std::future::poll_fn(|cx| {
        pulse.listen(cx);
        match pulse.verdict() {
            None if pulse.take_lull() => return Poll::Ready(None),
            Some(Verdict::End(Closed::Stalled | Closed::Refused)) => return Poll::Ready(Some(Ok(()))),
            Some(Verdict::End(_)) => {
                // One last poll, in which the link says its farewell.
                let _ = Pin::new(&mut *connection).poll(cx);
                return Poll::Ready(Some(Ok(())));
            }
            Some(Verdict::Wind(_)) if !wound => {
                wound = true;
                Pin::new(&mut *connection).graceful_shutdown();
            }
            _ => {}
        }
        Pin::new(&mut *connection).poll(cx).map(Some)
    });
    if let Some(result) = over.await {
        return ControlFlow::Break(result);
    }
    // Everything was flushed: the socket blocks nothing, and nothing is under way.
    let parts = connection.into_parts();
    let mut link = parts.io.into_inner();
    // An empty buffer still holds the room that it was given.
    if !parts.read_buf.is_empty() {
        pulse.set_holding();
        link.put_back(parts.read_buf);
    }
    ControlFlow::Continue(link)
}

/// Waits for the client's next word, its end, or a verdict. What there is to say to any of them, the next spell says.
async fn doze(link: &Link, pulse: &Pulse) {
    pulse.set_dozing(true);
    std::future::poll_fn(|cx| {
        pulse.listen(cx);
        match pulse.verdict() {
            Some(_) => Poll::Ready(()),
            None => link.poll_readable(cx),
        }
    })
    .await;
    pulse.set_dozing(false);
}
