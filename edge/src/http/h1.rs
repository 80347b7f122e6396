//! HTTP/1.1 and HTTP/1.0 over hyper.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::Answer;
use super::io::Link;
use super::pulse::{Closed, Verdict};
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
    link: Link,
    visit: Arc<Visit<A>>,
) -> Result<(), hyper::Error> {
    let pulse = Arc::clone(&visit.pulse);
    let service = service_fn(move |request| visit.answer(request));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(link), service));
    let mut wound = false;
    std::future::poll_fn(|cx| {
        pulse.listen(cx);
        match pulse.verdict() {
            Some(Verdict::End(Closed::Stalled | Closed::Refused)) => return Poll::Ready(Ok(())),
            Some(Verdict::End(_)) => {
                // One last poll, in which the link says its farewell.
                let _ = connection.as_mut().poll(cx);
                return Poll::Ready(Ok(()));
            }
            Some(Verdict::Wind(_)) if !wound => {
                wound = true;
                connection.as_mut().graceful_shutdown();
            }
            _ => {}
        }
        connection.as_mut().poll(cx)
    })
    .await
}
