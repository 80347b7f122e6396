//! The bytes of one connection: counted, budgeted, and under HTTP/2 sent in as few system calls as can be.
//!
//! A [`Link`] stands between hyper and the socket. It knows no frames and no messages, but for the two farewells it
//! says when a connection is ended for cause: a 408, and a GOAWAY.

use std::io::{self, IoSlice};
use std::iter;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::Protocol;
use super::early::EarlyStream;
use super::lines::Lines;
use super::pulse::{Closed, Pulse, Verdict};

/// How many bytes may wait for the socket as TLS records: four full frames of HTTP/2. More makes larger writes, and costs as
/// much memory on every connection whose client is slow.
const TLS_BUFFER_BYTES: usize = 65 * 1024;

/// What the TLS buffer holds besides: what TLS itself has to say, and the last of the writes that find it not quite full.
const TLS_SPARE_BYTES: usize = 16 * 1024;

/// What a TLS record takes, and what it costs besides (RFC 8446, 5.1 and 5.2).
const RECORD_BYTES: usize = 16 * 1024;
const RECORD_COST_BYTES: usize = 22;

/// A full frame of HTTP/2 with its header is a little more than a record takes. So much of its end waits for the next frame,
/// instead of becoming a record of its own.
const TAIL_BYTES: usize = 128;

/// In how many pieces h2 hands over a frame, at most, of which an end may be kept back.
const PIECES: usize = 3;

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
    /// TLS over TCP, with requests that may come before the handshake is over.
    Early(Box<EarlyStream<TcpStream>>),
}

impl Transport {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
            Self::Early(tls) => tls.io(),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Early(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
            Self::Early(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Early(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Early(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }

    /// Encrypts what there is room for into the TLS buffer, without touching the socket.
    fn put_aside(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let session = self.session().ok_or(io::ErrorKind::Unsupported)?;
        io::Write::write_vectored(&mut session.writer(), bufs)
    }

    /// How many bytes of TLS records wait for the socket.
    fn waiting_bytes(&mut self) -> io::Result<usize> {
        let session = self.session().ok_or(io::ErrorKind::Unsupported)?;
        let state = session.process_new_packets();
        let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(state.tls_bytes_to_write())
    }

    fn session(&mut self) -> Option<&mut ServerConnection> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => Some(tls.get_mut().1),
            Self::Early(tls) => Some(tls.session_mut()),
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
    /// Whether writes are put aside until [`Link::poll_release`].
    defers: bool,
    /// How many bytes have been put aside since the socket had taken all, with what their records cost.
    aside: usize,
    /// The end of a frame, which goes into a record with the next.
    tail: Vec<u8>,
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
        let mut defers = false;
        if let Some(session) = transport.session() {
            defers = pulse.protocol == Protocol::H2;
            session.set_buffer_limit(Some(TLS_BUFFER_BYTES + if defers { TLS_SPARE_BYTES } else { 0 }));
        }
        let in_transit = match pulse.protocol {
            Protocol::H1 => 0,
            Protocol::H2 => IN_TRANSIT_BYTES,
        };
        Self {
            defers,
            aside: 0,
            tail: Vec::new(),
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
        loop {
            self.end_record()?;
            ready!(self.poll_send(cx))?;
            if self.tail.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Sends what is in records.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = self.transport.poll_flush(cx);
        self.note(&result);
        if result.is_ready() {
            self.aside = 0;
        }
        result
    }

    /// Makes a record of what was kept back for the next one, as far as there is room, and gives its memory back.
    fn end_record(&mut self) -> io::Result<()> {
        if self.tail.is_empty() {
            return Ok(());
        }
        let taken = self.transport.put_aside(&[IoSlice::new(&self.tail)]);
        let taken = taken.inspect_err(|_| self.pulse.set_broken())?;
        self.tail = self.tail.split_off(taken);
        Ok(())
    }

    /// Puts a write aside while there is room. Then it is the socket's turn, and as much is taken as it has made room for.
    fn poll_put_aside(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
        wanted: usize,
    ) -> Poll<io::Result<usize>> {
        let cost = wanted + (wanted / RECORD_BYTES + 2) * RECORD_COST_BYTES;
        if self.aside + cost > TLS_BUFFER_BYTES {
            let is_blocked = self.poll_send(cx)?.is_pending();
            if is_blocked && self.transport.waiting_bytes()? >= TLS_BUFFER_BYTES {
                return Poll::Pending;
            }
            // A client may allow frames that are larger than the buffer.
            if is_blocked || cost > TLS_BUFFER_BYTES {
                self.end_record()?;
                let taken = match self.tail.is_empty() {
                    true => self.transport.put_aside(bufs)?,
                    false => 0,
                };
                self.aside += taken;
                return match taken {
                    0 if is_blocked => Poll::Pending,
                    0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    taken => Poll::Ready(Ok(taken)),
                };
            }
        }
        self.aside += cost;
        self.put_aside(bufs, wanted)?;
        Poll::Ready(Ok(wanted))
    }

    /// Puts a write aside, for which there is room, but for an end that just does not fit its last record.
    fn put_aside(&mut self, bufs: &[IoSlice<'_>], wanted: usize) -> io::Result<()> {
        let total = self.tail.len() + wanted;
        let end = match total % RECORD_BYTES {
            end if total > RECORD_BYTES && end <= TAIL_BYTES => end,
            _ => 0,
        };
        let is_whole = if bufs.len() > PIECES || (end == 0 && self.tail.is_empty()) {
            self.end_record()?;
            self.tail.is_empty() && self.transport.put_aside(bufs)? == wanted
        } else {
            let before = std::mem::take(&mut self.tail);
            let mut whole = [IoSlice::new(&[]); PIECES + 1];
            let mut left = total - end;
            let pieces = iter::once(&*before).chain(bufs.iter().map(|buf| &**buf));
            for (place, piece) in whole.iter_mut().zip(pieces) {
                let (fits, rest) = piece.split_at(piece.len().min(left));
                left -= fits.len();
                *place = IoSlice::new(fits);
                self.tail.extend_from_slice(rest);
            }
            self.transport.put_aside(&whole)? == total - end
        };
        match is_whole {
            true => Ok(()),
            false => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Tells the pulse whether the socket takes what it is given.
    fn note<T>(&self, result: &Poll<io::Result<T>>) {
        self.pulse.set_blocked(result.is_pending());
        if matches!(result, Poll::Ready(Err(_))) {
            self.pulse.set_broken();
        }
    }

    /// Says why the connection ends, if there are words for it, as far as the socket takes them at once.
    fn say_farewell(&mut self, cx: &mut Context<'_>, why: Closed) {
        if self.said_farewell {
            return;
        }
        self.said_farewell = true;
        let is_boundary = self.at_boundary && self.end_record().is_ok() && self.tail.is_empty();
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
        if let Transport::Early(tls) = &self.transport {
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
        let written = if self.defers {
            let result = self.poll_put_aside(cx, bufs, wanted);
            if matches!(result, Poll::Ready(Err(_))) {
                self.pulse.set_broken();
            }
            ready!(result)?
        } else {
            let result = self.transport.poll_write(cx, bufs);
            self.note(&result);
            ready!(result)?
        };
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
            if !self.tail.is_empty() {
                ready!(self.poll_release(cx))?;
            }
            let result = self.transport.poll_shutdown(cx);
            self.note(&result);
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
        if self.defers {
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
