//! The bytes of one connection: counted, budgeted, and under HTTP/2 sent in as few system calls as can be.
//!
//! A [`Link`] stands between hyper and the socket. It knows no frames and no messages, but for the two farewells it
//! says when a connection is ended for cause: a 408, and a GOAWAY.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Protocol;
use super::lines::Lines;
use super::pulse::{Closed, Pulse, Verdict};
use super::records::{RECORD_BYTES, Records};
use super::stream::TlsStream;

/// How many bytes rustls takes of a write at once under HTTP/1: full records, and none that is short.
const TLS_BUFFER_BYTES: usize = 4 * RECORD_BYTES;

/// Bytes written that pay for one byte of unproductive input: window updates are the price of a download.
const WRITTEN_PER_READ: u64 = 8;

/// Content that hyper has given back to the windows of HTTP/2, and that is counted a moment later on whatever thread took it:
/// a piece of 16 KiB for each of four. Until then it looks as if nobody had taken it.
const IN_TRANSIT_BYTES: u64 = 4 * 16 * 1024;

/// How much unread input is thrown away at the end, so that it does not turn our close into a reset.
const DISCARD_BYTES: usize = 256 * 1024;

const TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// GOAWAY on stream 0, last stream 0, ENHANCE_YOUR_CALM (RFC 9113, 6.8 and 7).
const CALM_DOWN: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

/// What a connection runs over.
#[derive(Debug)]
pub enum Transport {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.io(),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }

    pub(super) fn session(&mut self) -> Option<&mut ServerConnection> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => Some(tls.session_mut()),
        }
    }
}

/// One connection's bytes.
#[derive(Debug)]
pub(super) struct Link {
    transport: Transport,
    pulse: Arc<Pulse>,
    budget: Budget,
    /// Under HTTP/1.
    lines: Option<Lines>,
    /// What was read before, counted and looked at, and is to be read again.
    put_back: Bytes,
    /// Under HTTP/2 over TLS: writes are put aside until [`Link::poll_release`].
    records: Option<Records>,
    /// Whether the last write was taken whole, so that a frame of our own may follow it.
    at_boundary: bool,
    said_farewell: bool,
    discarded: usize,
    shut: bool,
}

impl Link {
    /// `unproductive_bytes` and `request_bytes` are the budget: what may come without a request, and what a request adds.
    pub(super) fn new(
        mut transport: Transport,
        pulse: Arc<Pulse>,
        unproductive_bytes: u64,
        request_bytes: u64,
    ) -> Self {
        let mut records = None;
        if let Some(session) = transport.session() {
            session.set_buffer_limit(Some(TLS_BUFFER_BYTES));
            records = (pulse.protocol == Protocol::H2).then(|| Records::new(session));
        }
        let in_transit = match pulse.protocol {
            Protocol::H1 => 0,
            Protocol::H2 => IN_TRANSIT_BYTES,
        };
        Self {
            records,
            lines: (pulse.protocol == Protocol::H1).then(Lines::default),
            put_back: Bytes::new(),
            transport,
            pulse,
            budget: Budget {
                spent: 0,
                max: unproductive_bytes + in_transit,
                per_request: request_bytes,
                requests: 0,
                excused: 0,
            },
            at_boundary: true,
            said_farewell: false,
            discarded: 0,
            shut: false,
        }
    }

    /// Gives back what was read and not used: it is read again before anything else.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.put_back = bytes;
    }

    /// Waits until there is something to read, or the client is gone, without room to read it into.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.put_back.is_empty() {
            return Poll::Ready(());
        }
        // What is wrong with the socket, the next read says.
        self.transport.tcp().poll_read_ready(cx).map(drop)
    }

    /// Sends what was put aside.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.records {
            Some(records) => records.poll_release(cx, &mut self.transport, &self.pulse),
            None => {
                let result = self.transport.poll_flush(cx);
                self.pulse.note(&result);
                result
            }
        }
    }

    /// Says why the connection ends, if there are words for it, as far as the socket takes them at once.
    fn say_farewell(&mut self, cx: &mut Context<'_>, why: Closed) {
        if self.said_farewell {
            return;
        }
        self.said_farewell = true;
        if let Some(records) = &mut self.records {
            let _ = records.end(&mut self.transport);
        }
        let is_boundary = self.at_boundary && self.records.as_ref().is_none_or(Records::is_ended);
        let words = match (why, self.pulse.protocol) {
            (Closed::HeaderTimeout, Protocol::H1) => TIMEOUT,
            (Closed::Unproductive, Protocol::H2) if is_boundary => CALM_DOWN,
            _ => return,
        };
        let _ = self.transport.poll_write(cx, &[IoSlice::new(words)]);
        let _ = self.transport.poll_flush(cx);
        let _ = self.transport.poll_shutdown(cx);
    }

    fn poll_read_counted(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(Verdict::End(why)) = self.pulse.verdict() {
            self.say_farewell(cx, why);
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if !self.put_back.is_empty() {
            let count = self.put_back.len().min(buf.remaining());
            buf.put_slice(&self.put_back.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        if let Err(error) = ready!(self.transport.poll_read(cx, buf)) {
            self.pulse.set_broken();
            return Poll::Ready(Err(error));
        }
        if let Transport::Tls(tls) = &self.transport {
            self.pulse.set_early(tls.is_early());
        }
        let count = (buf.filled().len() - before) as u64;
        if let (Some(lines), Some(fresh)) = (&mut self.lines, buf.filled_mut().get_mut(before..)) {
            lines.spoil(fresh);
            if lines.is_ambiguous() {
                self.pulse.set_ambiguous();
            }
        }
        self.pulse.count_read(count);
        self.budget.excuse(self.pulse.content());
        if !self.budget.take(count, self.pulse.requests()) {
            self.pulse.decide(Verdict::End(Closed::Unproductive));
            self.say_farewell(cx, Closed::Unproductive);
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_counted(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        let result = match &mut self.records {
            Some(records) => {
                let result = records.poll_take(cx, &mut self.transport, &self.pulse, bufs);
                if matches!(result, Poll::Ready(Err(_))) {
                    self.pulse.set_broken();
                }
                result
            }
            None => {
                let result = self.transport.poll_write(cx, bufs);
                self.pulse.note(&result);
                result
            }
        };
        let written = ready!(result)?;
        self.at_boundary = written == wanted;
        self.pulse.count_written(written as u64);
        self.budget.give(written as u64);
        Poll::Ready(Ok(written))
    }

    /// Closes our side, then throws away what has come in the meantime: unread bytes would turn the close into a reset,
    /// and a reset can take the last answer away from the client (RFC 9112, 9.6). Where a body is still on its way the
    /// client's own end is waited for, as long as the watchdog allows.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            let is_ended = self.records.as_ref().is_none_or(Records::is_ended);
            if !is_ended {
                ready!(self.poll_release(cx))?;
            }
            let result = self.transport.poll_shutdown(cx);
            self.pulse.note(&result);
            ready!(result)?;
            self.shut = true;
            self.pulse.set_lingering();
        }
        let mut space = [0; 4096];
        while self.discarded < DISCARD_BYTES {
            let mut buf = ReadBuf::new(&mut space);
            match self.transport.poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.discarded += buf.filled().len(),
                Poll::Pending if self.pulse.is_linger_wanted() => return Poll::Pending,
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // What a client does not take shall not stay in the kernel on its behalf.
        if self.pulse.verdict() == Some(Verdict::End(Closed::Stalled)) {
            let _ = socket2::SockRef::from(self.transport.tcp()).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_read_counted(cx, buf)
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_counted(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_counted(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.records.is_some() {
            return Poll::Ready(Ok(()));
        }
        self.poll_release(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_close(cx)
    }
}

/// A [`Link`] that the connection's own future can reach too, to release what was put aside.
#[derive(Clone, Debug)]
pub(super) struct SharedLink(Arc<Mutex<Link>>);

impl SharedLink {
    pub(super) fn new(link: Link) -> Self {
        Self(Arc::new(Mutex::new(link)))
    }

    /// Sends what was put aside during the last poll of the connection.
    pub(super) fn poll_release(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_release(cx)
    }

    /// Never contended: a connection lives on one thread.
    fn lock(&self) -> MutexGuard<'_, Link> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for SharedLink {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_read_counted(cx, buf)
    }
}

impl AsyncWrite for SharedLink {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.lock().poll_write_counted(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.lock().poll_write_counted(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_close(cx)
    }
}

/// What a client may send without asking anything: one bound on every flood of frames and bombs of header blocks.
#[derive(Debug)]
struct Budget {
    spent: u64,
    max: u64,
    per_request: u64,
    requests: u32,
    /// Bytes of content that have been given back.
    excused: u64,
}

impl Budget {
    /// Takes `read` bytes after `requests` requests in all; `false` once the budget is spent.
    fn take(&mut self, read: u64, requests: u32) -> bool {
        let new = u64::from(requests.wrapping_sub(self.requests));
        self.requests = requests;
        self.spent = self.spent.saturating_sub(new.saturating_mul(self.per_request)) + read;
        self.spent <= self.max + self.per_request
    }

    /// Content that somebody took is no flood; `content` is all of it so far.
    fn excuse(&mut self, content: u64) {
        let new = content.saturating_sub(self.excused);
        self.excused = content;
        self.spent = self.spent.saturating_sub(new);
    }

    fn give(&mut self, written: u64) {
        self.spent = self.spent.saturating_sub(written / WRITTEN_PER_READ);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        Budget {
            spent: 0,
            max: 1000,
            per_request: 100,
            requests: 0,
            excused: 0,
        }
    }

    #[test]
    fn a_flood_without_requests_spends_the_budget() {
        let mut budget = budget();
        assert!((0..11).all(|_| budget.take(100, 0)));
        assert!(!budget.take(1, 0));
    }

    #[test]
    fn requests_and_downloads_pay() {
        let mut budget = budget();
        assert!((0..1000).all(|n| budget.take(100, n)));
        assert!((0..1000).all(|_| {
            budget.give(800);
            budget.take(100, 1000)
        }));
    }

    #[test]
    fn content_that_is_taken_costs_nothing_and_content_that_is_not_is_a_flood() {
        let mut budget = budget();
        assert!((1..1000).all(|n| {
            budget.excuse(n * 1000);
            budget.take(1000, 1)
        }));
        assert!(!(0..3).all(|_| budget.take(1000, 1)));
    }

    #[test]
    fn a_request_now_and_then_does_not_pay_for_a_flood() {
        let mut budget = budget();
        assert!(!(0..100).all(|n| budget.take(1000, n)));
    }
}
