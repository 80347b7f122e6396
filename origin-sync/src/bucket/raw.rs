//! Answers that HTTP libraries will not write: too short, too long, too slow, or none at all.
//!
//! The connection is taken away from hyper before the first byte of such an answer, which is then written to the
//! socket here, byte by byte as the fault wants it. The connection ends with it.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body::Body as _;
use s3s::Body;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::fault::{Barrier, Fault};
use super::store::now;

/// What is written to a connection that was taken over.
#[derive(Debug)]
pub(super) enum Takeover {
    /// An answer, in the shape that faults give it.
    Answer(Method, Box<Response<Body>>, Shape),
    /// These bytes, and no more.
    Bytes(&'static [u8]),
    /// Nothing but a reset.
    Reset,
}

/// What faults do to the framing and the body of an answer.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// Whether there is anything to do.
    is_bent: bool,
    /// Added to the true length in `Content-Length`.
    length_error: i64,
    /// Header fields, in bytes.
    padding: usize,
    half: bool,
    flips: Vec<u64>,
    bytes_per_second: Option<u64>,
    holds: Vec<(u64, Barrier)>,
    end: Option<(u64, End)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Close,
    Reset,
    Stall,
}

pub(super) const GARBAGE: &[u8] = b"\x15\x03\x01\x00\x02\x02\x28 this is not HTTP\r\n\r\n";

const PADDING_FIELD_BYTES: usize = 4096;
const BEATS_PER_SECOND: u64 = 20;

impl Shape {
    /// The shape that these faults give; nothing when none of them touches the framing or the body.
    pub(super) fn of(faults: &[Fault]) -> Option<Self> {
        let mut shape = Self::default();
        for fault in faults {
            shape.is_bent |= shape.bend(fault);
        }
        shape.holds.sort_by_key(|(place, _)| *place);
        shape.is_bent.then_some(shape)
    }

    fn bend(&mut self, fault: &Fault) -> bool {
        match fault {
            Fault::HugeHeaders(bytes) => self.padding = *bytes,
            Fault::StaleRange => self.half = true,
            Fault::WrongLength(error) => self.length_error = *error,
            Fault::FlipByte(place) => self.flips.push(*place),
            Fault::Drip { bytes_per_second } => self.bytes_per_second = Some((*bytes_per_second).max(1)),
            Fault::StallAfter(place) => self.end = Some((*place, End::Stall)),
            Fault::TruncateAfter(place) => self.end = Some((*place, End::Close)),
            Fault::ResetAfter(place) => self.end = Some((*place, End::Reset)),
            Fault::HoldBodyUntil(place, barrier) => self.holds.push((*place, barrier.clone())),
            _ => return false,
        }
        true
    }
}

impl Takeover {
    /// Writes it, and ends the connection.
    pub(super) async fn carry_out(self, mut socket: TcpStream) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => {
                socket.write_all(bytes).await?;
                close(socket).await
            }
            Self::Reset => reset(socket),
            Self::Answer(method, response, shape) => answer(socket, &method, *response, shape).await,
        }
    }
}

async fn answer(
    mut socket: TcpStream,
    method: &Method,
    response: Response<Body>,
    shape: Shape,
) -> io::Result<()> {
    let (mut parts, mut body) = response.into_parts();
    let whole = body.size_hint().exact().unwrap_or_default();
    let mut length = whole;
    if shape.half && parts.status == StatusCode::OK && whole > 1 {
        length = whole / 2;
        parts.status = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes 0-{}/{whole}", length - 1);
        parts
            .headers
            .extend(range.parse().ok().map(|range| (header::CONTENT_RANGE, range)));
    }
    let stated = length.saturating_add_signed(shape.length_error);
    let is_sound = shape.length_error == 0 && shape.end.is_none();
    let head = head(parts.status, &parts.headers, stated, is_sound, shape.padding);
    socket.write_all(&head).await?;
    if *method == Method::HEAD {
        return close(socket).await;
    }
    let mut pen = Pen {
        socket,
        shape,
        written: 0,
        until: length,
    };
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(io::Error::other)?;
        let Ok(bytes) = frame.into_data() else { continue };
        if !pen.write(bytes.to_vec()).await? {
            break;
        }
    }
    pen.finish().await
}

/// Writes a body up to the place where it is to end.
struct Pen {
    socket: TcpStream,
    shape: Shape,
    written: u64,
    until: u64,
}

impl Pen {
    /// Writes one piece; says whether more may come.
    async fn write(&mut self, mut bytes: Vec<u8>) -> io::Result<bool> {
        for flip in &self.shape.flips {
            let place = flip
                .checked_sub(self.written)
                .and_then(|place| usize::try_from(place).ok());
            if let Some(byte) = place.and_then(|place| bytes.get_mut(place)) {
                *byte ^= 1;
            }
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            self.wait().await;
            let limit = self.room();
            if limit == 0 {
                return Ok(false);
            }
            let count = usize::try_from(limit).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            self.socket.write_all(now).await?;
            self.written += now.len() as u64;
            rest = later;
        }
        Ok(self.room() > 0)
    }

    /// How many bytes may be written before something happens; none when the body is to end here.
    fn room(&self) -> u64 {
        let end = self
            .shape
            .end
            .map_or(self.until, |(place, _)| place.min(self.until));
        let mut room = end.saturating_sub(self.written);
        if let Some((place, _)) = self.shape.holds.first() {
            room = room.min(place.saturating_sub(self.written).max(1));
        }
        match self.shape.bytes_per_second {
            Some(pace) => room.min((pace / BEATS_PER_SECOND).max(1)),
            None => room,
        }
    }

    async fn wait(&mut self) {
        while let Some((place, barrier)) = self.shape.holds.first().cloned() {
            if place > self.written {
                break;
            }
            barrier.pass().await;
            self.shape.holds.remove(0);
        }
        if let Some(pace) = self.shape.bytes_per_second {
            let beats = pace.min(BEATS_PER_SECOND);
            tokio::time::sleep(Duration::from_secs(1) / u32::try_from(beats).unwrap_or(1)).await;
        }
    }

    async fn finish(self) -> io::Result<()> {
        match self.shape.end {
            Some((place, end)) if self.written >= place.min(self.until) => match end {
                End::Close => close(self.socket).await,
                End::Reset => {
                    // What was written shall arrive: a reset throws away what is not yet delivered.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    reset(self.socket)
                }
                End::Stall => hang(self.socket).await,
            },
            _ => close(self.socket).await,
        }
    }
}

fn head(status: StatusCode, headers: &HeaderMap, length: u64, is_sound: bool, padding: usize) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or("Unknown");
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    if !headers.contains_key(header::DATE) {
        head.extend_from_slice(format!("date: {}\r\n", httpdate::fmt_http_date(now())).as_bytes());
    }
    let framing = [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
    ];
    for (name, value) in headers.iter().filter(|(name, _)| !framing.contains(name)) {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    let mut left = padding;
    while left > 0 {
        let bytes = left.min(PADDING_FIELD_BYTES);
        head.extend_from_slice(format!("x-padding-{left}: {}\r\n", "p".repeat(bytes)).as_bytes());
        left -= bytes;
    }
    head.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
    if is_sound {
        // A broken answer does not say so; a sound one is honest about its connection.
        head.extend_from_slice(b"connection: close\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Sends FIN, and waits a little for the other side to do so: closing with unread bytes would be a reset.
async fn close(mut socket: TcpStream) -> io::Result<()> {
    socket.shutdown().await?;
    let _ = tokio::time::timeout(Duration::from_secs(1), hang(socket)).await;
    Ok(())
}

/// Says nothing until the other side goes away.
async fn hang(mut socket: TcpStream) -> io::Result<()> {
    let mut sink = [0; 1024];
    while socket.read(&mut sink).await? > 0 {}
    Ok(())
}

/// Sends RST: with no time to linger, closing is a reset.
fn reset(socket: TcpStream) -> io::Result<()> {
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO))
}
