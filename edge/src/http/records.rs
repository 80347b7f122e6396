//! TLS records of HTTP/2 that wait for the socket.
//!
//! h2 flushes after every frame. Here frames become records that are put aside, until the connection has been polled to its
//! end or as much waits as may: then all of them leave in as few system calls as it takes.

use std::io::{self, IoSlice, Write as _};
use std::iter;
use std::task::{Context, Poll, ready};

use rustls::ServerConnection;

use super::io::Transport;
use super::pulse::Pulse;

/// How many bytes may wait for the socket: four full frames of HTTP/2. More makes larger writes, and costs as much memory on
/// every connection whose client is slow.
const BUFFER_BYTES: usize = 65 * 1024;

/// What rustls holds besides: what TLS itself has to say, and the last of the writes that find the buffer not quite full.
const SPARE_BYTES: usize = 16 * 1024;

/// What a record takes, and what it costs besides (RFC 8446, 5.1 and 5.2).
pub(super) const RECORD_BYTES: usize = 16 * 1024;
const RECORD_COST_BYTES: usize = 22;

/// A full frame of HTTP/2 with its header is a little more than a record takes. So much of its end waits for the next frame,
/// instead of becoming a record of its own.
const TAIL_BYTES: usize = 128;

/// In how many pieces h2 hands over a frame, at most, of which an end may be kept back.
const PIECES: usize = 3;

/// What of one connection waits.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// How many bytes have been put aside since the socket had taken all, with what their records cost.
    aside: usize,
    /// The end of a frame, which goes into a record with the next.
    tail: Vec<u8>,
}

impl Records {
    /// Makes room in `session`.
    pub(super) fn new(session: &mut ServerConnection) -> Self {
        session.set_buffer_limit(Some(BUFFER_BYTES + SPARE_BYTES));
        Self::default()
    }

    /// Whether nothing is kept back for another record.
    pub(super) fn is_ended(&self) -> bool {
        self.tail.is_empty()
    }

    /// Sends everything.
    pub(super) fn poll_release(
        &mut self,
        cx: &mut Context<'_>,
        transport: &mut Transport,
        pulse: &Pulse,
    ) -> Poll<io::Result<()>> {
        loop {
            self.end(transport).inspect_err(|_| pulse.set_broken())?;
            ready!(self.poll_send(cx, transport, pulse))?;
            if self.is_ended() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Sends what is in records.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        transport: &mut Transport,
        pulse: &Pulse,
    ) -> Poll<io::Result<()>> {
        let result = transport.poll_flush(cx);
        pulse.note(&result);
        if result.is_ready() {
            self.aside = 0;
        }
        result
    }

    /// Makes a record of what was kept back for the next one, as far as there is room, and gives its memory back.
    pub(super) fn end(&mut self, transport: &mut Transport) -> io::Result<()> {
        if !self.is_ended() {
            let taken = seal(transport, &[IoSlice::new(&self.tail)])?;
            self.tail = self.tail.split_off(taken);
        }
        Ok(())
    }

    /// Takes a write while there is room. Then it is the socket's turn, and as much is taken as it has made room for.
    pub(super) fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        transport: &mut Transport,
        pulse: &Pulse,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted = bufs.iter().map(|buf| buf.len()).sum();
        let cost = wanted + (wanted / RECORD_BYTES + 2) * RECORD_COST_BYTES;
        if self.aside + cost > BUFFER_BYTES {
            let is_blocked = self.poll_send(cx, transport, pulse)?.is_pending();
            if is_blocked && waiting_bytes(transport)? >= BUFFER_BYTES {
                return Poll::Pending;
            }
            // A client may allow frames that are larger than the buffer.
            if is_blocked || cost > BUFFER_BYTES {
                self.end(transport)?;
                let taken = match self.is_ended() {
                    true => seal(transport, bufs)?,
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
        self.put_aside(transport, bufs, wanted)?;
        Poll::Ready(Ok(wanted))
    }

    /// Puts a write aside, for which there is room, but for an end that just does not fit its last record.
    fn put_aside(
        &mut self,
        transport: &mut Transport,
        bufs: &[IoSlice<'_>],
        wanted: usize,
    ) -> io::Result<()> {
        let total = self.tail.len() + wanted;
        let end = match total % RECORD_BYTES {
            end if total > RECORD_BYTES && end <= TAIL_BYTES => end,
            _ => 0,
        };
        let is_whole = if bufs.len() > PIECES || (end == 0 && self.is_ended()) {
            self.end(transport)?;
            self.is_ended() && seal(transport, bufs)? == wanted
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
            seal(transport, &whole)? == total - end
        };
        match is_whole {
            true => Ok(()),
            false => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

/// Makes records of what there is room for, without touching the socket.
fn seal(transport: &mut Transport, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let session = transport.session().ok_or(io::ErrorKind::Unsupported)?;
    session.writer().write_vectored(bufs)
}

/// How many bytes of records wait for the socket.
fn waiting_bytes(transport: &mut Transport) -> io::Result<usize> {
    let session = transport.session().ok_or(io::ErrorKind::Unsupported)?;
    let state = session.process_new_packets();
    let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(state.tls_bytes_to_write())
}
