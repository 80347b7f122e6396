//! Making and undoing content codings, a piece at a time.
//!
//! Plain objects that compute and never wait; where they run, and within what budget, is the caller's. The bytes that an
//! encoder makes depend on the content, the coding and the quality alone: not on how the content was cut into pieces, nor
//! on its announced length, nor on the node. That is what lets the entity tag of a coded form be made from a suffix.

use std::fmt;
use std::io;

use async_compression::Level;
use async_compression::codecs::brotli::params::EncoderParams;
use async_compression::codecs::zstd::params::{CParameter, DParameter};
use async_compression::codecs::{
    BrotliDecoder, BrotliEncoder, DecodeV2, EncodeV2, GzipDecoder, GzipEncoder, ZstdDecoder, ZstdEncoder,
};
use async_compression::core::util::{PartialBuffer, WriteBuffer};
use bytes::{Buf as _, Bytes, BytesMut};

use super::coding::Coding;

/// How much effort a coded form is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quality {
    /// Made while the first client waits: comes out as the content comes in.
    Fast,
    /// Made once, in the background, to be kept.
    Best,
}

/// The suffixes of all coded forms that this encoder makes.
pub const SUFFIXES: [&str; 6] = ["br11", "br5", "zstd19", "zstd3", "gzip9", "gzip6"];

impl Coding {
    /// What names the bytes of this coding at this quality in an entity tag; empty for identity. Whoever changes the level,
    /// a parameter, or a library so that it makes other bytes, changes the suffix too.
    pub const fn suffix(self, quality: Quality) -> &'static str {
        match (self, quality) {
            (Self::Br, Quality::Best) => "br11",
            (Self::Br, Quality::Fast) => "br5",
            (Self::Gzip, Quality::Best) => "gzip9",
            (Self::Gzip, Quality::Fast) => "gzip6",
            (Self::Identity, _) => "",
            (Self::Zstd, Quality::Best) => "zstd19",
            (Self::Zstd, Quality::Fast) => "zstd3",
        }
    }
}

/// Codes one body.
///
/// There is no flush: one at the caller's moment would make the bytes depend on that moment. Instead the fast quality
/// brings out all it has at fixed places, after every [`BLOCK`] bytes of content.
pub struct Encoder {
    codec: Box<dyn EncodeV2 + Send + Sync>,
    /// Content that does not fill a block yet. The codecs are only ever handed whole blocks and one last rest.
    pending: BytesMut,
    flushes: bool,
}

/// How many bytes of content are handed to a codec at once.
pub const BLOCK: usize = 128 * 1024;

impl Encoder {
    /// An encoder for `coding`; `None` for identity, which needs none.
    pub fn new(coding: Coding, quality: Quality) -> Option<Self> {
        let codec: Box<dyn EncodeV2 + Send + Sync> = match (coding, quality) {
            (Coding::Br, Quality::Best) => Box::new(brotli(11)),
            (Coding::Br, Quality::Fast) => Box::new(brotli(5)),
            (Coding::Gzip, Quality::Best) => Box::new(GzipEncoder::new(Level::Precise(9).into())),
            (Coding::Gzip, Quality::Fast) => Box::new(GzipEncoder::new(Level::Precise(6).into())),
            (Coding::Identity, _) => return None,
            (Coding::Zstd, Quality::Best) => Box::new(zstd(19)),
            (Coding::Zstd, Quality::Fast) => Box::new(zstd(3)),
        };
        Some(Self {
            codec,
            pending: BytesMut::new(),
            flushes: quality == Quality::Fast,
        })
    }

    /// Takes the next piece of content, and gives what came out; often nothing.
    ///
    /// # Errors
    ///
    /// When the codec fails, after which the encoder is of no use.
    pub fn write(&mut self, mut content: &[u8]) -> io::Result<Bytes> {
        let mut coded = BytesMut::new();
        while let Some((head, rest)) = content.split_at_checked(BLOCK - self.pending.len()) {
            self.pending.extend_from_slice(head);
            content = rest;
            self.encode(&mut coded)?;
            if self.flushes {
                drain(&mut coded, |output| self.codec.flush(output))?;
            }
        }
        self.pending.extend_from_slice(content);
        Ok(coded.freeze())
    }

    /// Ends the content, and gives the rest of the coded form.
    ///
    /// # Errors
    ///
    /// When the codec fails.
    pub fn finish(mut self) -> io::Result<Bytes> {
        let mut coded = BytesMut::new();
        self.encode(&mut coded)?;
        drain(&mut coded, |output| self.codec.finish(output))?;
        Ok(coded.freeze())
    }

    /// Hands over what is pending, all of it.
    fn encode(&mut self, coded: &mut BytesMut) -> io::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let mut input = PartialBuffer::new(pending.as_ref());
        while !input.unwritten().is_empty() {
            drain_once(coded, |output| self.codec.encode(&mut input, output))?;
        }
        self.pending = pending;
        self.pending.clear();
        Ok(())
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder")
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

/// Undoes one coding of one body.
///
/// What comes out is bounded at each step, however much a few bytes may stand for. Several gzip members, or zstd frames,
/// one after another are one body (RFC 1952, 2.2; RFC 8878, 3.1). Anything else after the end is an error.
pub struct Decoder {
    coding: Coding,
    codec: Box<dyn DecodeV2 + Send + Sync>,
    state: State,
    streams: u32,
}

/// The most that one call of [`Decoder::decode`] gives.
pub const PIECE_MAX: usize = 32 * 1024;

/// How many gzip members or zstd frames a body may have: room for 64 MiB in members of 64 KiB, and far less than would keep
/// a core busy with beginnings.
pub const STREAMS_MAX: u32 = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was read yet, or only whole streams.
    Between,
    /// Within a stream; all that could come out came out.
    Within,
    /// Within a stream, and more may come out without more input.
    Full,
}

impl Decoder {
    /// A decoder for `coding`; `None` for identity, which needs none.
    pub fn new(coding: Coding) -> Option<Self> {
        let codec: Box<dyn DecodeV2 + Send + Sync> = match coding {
            Coding::Br => Box::new(BrotliDecoder::new()),
            Coding::Gzip => Box::new(GzipDecoder::new()),
            Coding::Identity => return None,
            // RFC 9659: no content coding needs a window above 8 MiB, and no client has to give more.
            Coding::Zstd => Box::new(ZstdDecoder::new_with_params(&[DParameter::window_log_max(23)])),
        };
        Some(Self {
            coding,
            codec,
            state: State::Between,
            streams: 0,
        })
    }

    /// Decodes from the front of `input`, and gives at most [`PIECE_MAX`] bytes. Call it until it gives nothing: then all
    /// of `input` was taken.
    ///
    /// # Errors
    ///
    /// When the input is not of this coding, goes on after its end, or begins more than [`STREAMS_MAX`] streams.
    pub fn decode(&mut self, input: &mut Bytes) -> io::Result<Bytes> {
        let mut decoded = BytesMut::new();
        while decoded.is_empty() && (self.state == State::Full || !input.is_empty()) {
            self.step(input, &mut decoded)?;
        }
        Ok(decoded.freeze())
    }

    /// Ends the input.
    ///
    /// # Errors
    ///
    /// When the coded form is not complete.
    pub fn finish(mut self) -> io::Result<()> {
        let mut rest = BytesMut::new();
        let complete = match self.state {
            State::Between => self.streams > 0,
            State::Full => false,
            State::Within => drain_once(&mut rest, |output| self.codec.finish(output))?,
        };
        if complete && rest.is_empty() {
            return Ok(());
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn step(&mut self, input: &mut Bytes, decoded: &mut BytesMut) -> io::Result<()> {
        if self.state == State::Between {
            self.begin()?;
        }
        let mut taken = PartialBuffer::new(input.as_ref());
        let mut ended = false;
        let room = drain_room(decoded, |output| {
            if taken.unwritten().is_empty() {
                return self.codec.flush(output).map(|_| ());
            }
            ended = self.codec.decode(&mut taken, output)?;
            Ok(())
        })?;
        let count = taken.written_len();
        let stuck = count == 0 && decoded.is_empty() && !ended && !input.is_empty();
        input.advance(count);
        self.state = match (ended, room) {
            (true, _) => State::Between,
            (false, true) => State::Within,
            (false, false) => State::Full,
        };
        if stuck {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the decoder does not go on",
            ));
        }
        Ok(())
    }

    /// Begins a stream, where the coding allows one.
    fn begin(&mut self) -> io::Result<()> {
        if self.streams > 0 {
            if self.coding == Coding::Br {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes after the end"));
            }
            if self.streams == STREAMS_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "too many streams"));
            }
            self.codec.reinit()?;
        }
        self.streams += 1;
        Ok(())
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("coding", &self.coding)
            .field("state", &self.state)
            .field("streams", &self.streams)
            .finish_non_exhaustive()
    }
}

/// The window is 4 MiB, more than the scripts we serve, and the size hint is fixed: left alone, the codec would take it from
/// the first piece that it sees.
fn brotli(level: i32) -> BrotliEncoder {
    let params = EncoderParams::default()
        .quality(Level::Precise(level))
        .window_size(22)
        .size_hint(1 << 20);
    BrotliEncoder::new(params)
}

/// The window is the largest that each client must have (RFC 9659), or as the level sets it where that is less.
fn zstd(level: i32) -> ZstdEncoder {
    let window_log = if level < 19 { 21 } else { 23 };
    ZstdEncoder::new_with_params(level, &[CParameter::window_log(window_log)])
}

/// Runs `step` until it says that it is done.
fn drain(
    to: &mut BytesMut,
    mut step: impl FnMut(&mut WriteBuffer<'_>) -> io::Result<bool>,
) -> io::Result<()> {
    while !drain_once(to, &mut step)? {}
    Ok(())
}

/// Runs `step` once with an empty buffer, and moves what it wrote.
fn drain_once<T>(
    to: &mut BytesMut,
    step: impl FnOnce(&mut WriteBuffer<'_>) -> io::Result<T>,
) -> io::Result<T> {
    let mut result = None;
    drain_room(to, |output| {
        result = Some(step(output)?);
        Ok(())
    })?;
    result.ok_or_else(|| io::ErrorKind::Other.into())
}

/// Runs `step` once with an empty buffer, moves what it wrote, and says whether there was room left.
fn drain_room(
    to: &mut BytesMut,
    step: impl FnOnce(&mut WriteBuffer<'_>) -> io::Result<()>,
) -> io::Result<bool> {
    let mut buffer = [0; PIECE_MAX];
    let mut output = WriteBuffer::new_initialized(&mut buffer);
    step(&mut output)?;
    to.extend_from_slice(output.written());
    Ok(!output.has_no_spare_space())
}
