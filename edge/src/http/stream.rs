//! TLS over a socket, as [`Link`](super::io::Link) wants it: what TLS itself has to say waits for what we say.
//!
//! Reading sends nothing. Session tickets, and what else comes up while the client is read, leave with what is written or
//! flushed next. Where the first answer is a hit, it and the tickets are one packet.
//!
//! First requests may come before the handshake is over (RFC 8446 section 2.3). Answers to them leave at once, before the
//! client has shown that it is no copy. What such a request may do is decided where it is answered; here it is only told
//! apart from those that come later.

use std::io::{self, BufRead as _, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::Accepted;
use rustls::{ProtocolVersion, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// One TLS connection of a client.
#[derive(Debug)]
pub struct TlsStream<IO> {
    io: IO,
    session: ServerConnection,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> TlsStream<IO> {
    /// Shakes hands with the client behind `io`, whose hello was `accepted`, until requests can be read: to the end, unless
    /// the client sends some already and is believed to be no copy.
    ///
    /// # Errors
    ///
    /// When it comes to nothing. The client has been told why.
    pub async fn start(accepted: Accepted, mut io: IO, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = match accepted.into_connection(config) {
            Ok(session) => session,
            Err((error, mut alert)) => {
                let mut words = Vec::new();
                alert.write_all(&mut words)?;
                // Whether the alert arrives changes nothing: the connection ends here.
                let _ = io.write_all(&words).await;
                return Err(invalid(error));
            }
        };
        let mut stream = Self { io, session };
        std::future::poll_fn(|cx| stream.poll_start(cx)).await?;
        Ok(stream)
    }

    /// What it runs over.
    pub fn io(&self) -> &IO {
        &self.io
    }

    /// The state of TLS.
    pub fn session(&self) -> &ServerConnection {
        &self.session
    }

    /// The state of TLS, to be changed.
    pub fn session_mut(&mut self) -> &mut ServerConnection {
        &mut self.session
    }

    /// Whether what was read last may have come from somebody who has only recorded it.
    pub fn is_early(&self) -> bool {
        self.session.is_handshaking()
    }

    fn poll_start(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What came together with the hello is here already, and the socket will not tell of it again.
        self.process(cx)?;
        loop {
            let is_done = !self.session.is_handshaking();
            if is_done && self.session.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
                return Poll::Ready(Ok(()));
            }
            let sent = self.poll_send(cx)?;
            if is_done {
                // The client of an older version waits for our last word before it asks.
                return sent.map(Ok);
            }
            if self.session.early_data().is_some() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Hands all that TLS has to say to the socket.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            let mut socket = Socket { io: &mut self.io, cx };
            match self.session.write_tls(&mut socket) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what the socket has; 0 at its end.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut socket = Socket { io: &mut self.io, cx };
        let count = match self.session.read_tls(&mut socket) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        };
        self.process(cx)?;
        Poll::Ready(Ok(count))
    }

    /// Makes sense of what was received.
    fn process(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Err(error) = self.session.process_new_packets() {
            // The alert, as far as the socket takes it at once.
            let _ = self.poll_send(cx);
            return Err(invalid(error));
        }
        Ok(())
    }

    /// What is there already: what came early first. `None` when there is nothing.
    fn read_at_hand(&mut self, buf: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        if let Some(mut early) = self.session.early_data() {
            match early.read(buf.initialize_unfilled()) {
                Ok(0) => {}
                read => return Some(read.map(|count| buf.advance(count))),
            }
        }
        let mut reader = self.session.reader();
        let count = match reader.fill_buf() {
            Ok(bytes) => {
                let count = bytes.len().min(buf.remaining());
                buf.put_slice(bytes.get(..count).unwrap_or_default());
                count
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) => return Some(Err(error)),
        };
        reader.consume(count);
        Some(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(read) = self.read_at_hand(buf) {
                return Poll::Ready(read);
            }
            ready!(self.poll_receive(cx))?;
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        loop {
            let written = self.session.writer().write_vectored(bufs)?;
            let sent = self.poll_send(cx)?;
            if written > 0 {
                return Poll::Ready(Ok(written));
            }
            // The buffer was full; now there is room, or the socket will say when.
            ready!(sent);
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Said once, however often it is asked for.
        self.session.send_close_notify();
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A socket as rustls wants it: it does not wait, it says that it would have to.
struct Socket<'a, 'b, IO> {
    io: &'a mut IO,
    cx: &'a mut Context<'b>,
}

impl<IO: AsyncRead + Unpin> Read for Socket<'_, '_, IO> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(space);
        match Pin::new(&mut *self.io).poll_read(self.cx, &mut buf) {
            Poll::Ready(Ok(())) => Ok(buf.filled().len()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<IO: AsyncWrite + Unpin> Write for Socket<'_, '_, IO> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.io).poll_write(self.cx, bytes) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.io).poll_write_vectored(self.cx, bufs) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
