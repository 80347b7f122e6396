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
pub const SUFFIXES: [&str; 6] = ["br11", "br5b", "zstd19", "zstd3", "gzip9", "gzip6"];

impl Coding {
    /// What names the bytes of this coding at this quality in an entity tag; empty for identity. Whoever changes the level,
    /// a parameter, or a library so that it makes other bytes, changes the suffix too.
    pub const fn suffix(self, quality: Quality) -> &'static str {
        match (self, quality) {
            (Self::Br, Quality::Best) => "br11",
            (Self::Br, Quality::Fast) => "br5b",
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
            if taken.unwritten().is_empty() && self.coding == Coding::Gzip {
                // Inflate takes a call without input for an error, the others lose the end of the stream in a flush.
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

/// The window is 4 MiB, more than the scripts we serve. How long the content will be, the codec takes from the first piece
/// that it sees: a block, or all there is. A larger hint makes forms of level 5 up to a tenth longer, and takes more time.
fn brotli(level: i32) -> BrotliEncoder {
    let params = EncoderParams::default()
        .quality(Level::Precise(level))
        .window_size(22);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CODED: [Coding; 3] = [Coding::Br, Coding::Gzip, Coding::Zstd];

    /// A hash of what is made of the same content, for each suffix.
    const BYTES: [&str; 6] = [
        "br11 1b404e1a1f790288",
        "gzip9 484a6d65bc88ea5d",
        "zstd19 38ff99345c230224",
        "br5b e98a79878e121b59",
        "gzip6 727cac991f636065",
        "zstd3 83e4dced6269c750",
    ];

    /// Something between prose and noise, always the same.
    fn sample(length: usize) -> Vec<u8> {
        let words = [
            "function", "return", "this", "=>", "{", "}", "login", "0x", ";", "\n",
        ];
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut text = Vec::with_capacity(length + 16);
        while text.len() < length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.extend_from_slice(words[(state % 10) as usize].as_bytes());
            if state.is_multiple_of(7) {
                text.extend_from_slice(&state.to_le_bytes());
            }
        }
        text.truncate(length);
        text
    }

    fn encode(coding: Coding, quality: Quality, content: &[u8], piece: usize) -> Vec<u8> {
        let mut encoder = Encoder::new(coding, quality).unwrap();
        let mut coded = Vec::new();
        for piece in content.chunks(piece) {
            coded.extend_from_slice(&encoder.write(piece).unwrap());
        }
        coded.extend_from_slice(&encoder.finish().unwrap());
        coded
    }

    fn decode(coding: Coding, coded: &[u8], piece: usize) -> io::Result<Vec<u8>> {
        let mut decoder = Decoder::new(coding).unwrap();
        let mut content = Vec::new();
        for piece in coded.chunks(piece) {
            let mut input = Bytes::copy_from_slice(piece);
            loop {
                let out = decoder.decode(&mut input)?;
                assert!(out.len() <= PIECE_MAX);
                if out.is_empty() {
                    assert!(input.is_empty());
                    break;
                }
                content.extend_from_slice(&out);
            }
        }
        decoder.finish()?;
        Ok(content)
    }

    #[test]
    fn identity_needs_neither() {
        assert!(Encoder::new(Coding::Identity, Quality::Best).is_none());
        assert!(Decoder::new(Coding::Identity).is_none());
        assert_eq!(Coding::Identity.suffix(Quality::Fast), "");
    }

    #[test]
    fn every_suffix_is_listed_once() {
        let mut made: Vec<_> = CODED
            .iter()
            .flat_map(|coding| [coding.suffix(Quality::Best), coding.suffix(Quality::Fast)])
            .collect();
        made.sort_unstable();
        let mut listed = SUFFIXES.to_vec();
        listed.sort_unstable();
        assert_eq!(made, listed);
    }

    #[test]
    fn the_bytes_do_not_depend_on_the_pieces() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 77] {
            let content = sample(length);
            for coding in CODED {
                let whole = encode(coding, Quality::Fast, &content, usize::MAX);
                for piece in [4093, BLOCK + 1] {
                    let pieces = encode(coding, Quality::Fast, &content, piece);
                    assert!(whole == pieces, "{coding:?} {length} by {piece}");
                }
                assert!(
                    decode(coding, &whole, 1009).unwrap() == content,
                    "{coding:?} {length}"
                );
            }
        }
    }

    #[test]
    fn the_fast_quality_gives_what_it_has_after_every_block() {
        for coding in CODED {
            let mut encoder = Encoder::new(coding, Quality::Fast).unwrap();
            let content = sample(BLOCK);
            assert!(encoder.write(&content[1..]).unwrap().is_empty());
            let mut coded = encoder.write(&content[..1]).unwrap();
            let mut decoder = Decoder::new(coding).unwrap();
            let mut length = 0;
            loop {
                match decoder.decode(&mut coded).unwrap().len() {
                    0 => break,
                    more => length += more,
                }
            }
            assert_eq!(length, BLOCK, "{coding:?}");
        }
    }

    #[test]
    fn the_bytes_behind_a_suffix_are_always_the_same() {
        let content = sample(150_000);
        let mut made = Vec::new();
        for (quality, piece) in [(Quality::Best, 3001), (Quality::Fast, usize::MAX)] {
            for coding in CODED {
                let coded = encode(coding, quality, &content, piece);
                assert!(decode(coding, &coded, usize::MAX).unwrap() == content);
                let hash = coded.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
                });
                made.push((coded.len(), format!("{} {hash:016x}", coding.suffix(quality))));
            }
        }
        let (lengths, names): (Vec<_>, Vec<_>) = made.into_iter().unzip();
        // When a codec makes other bytes, its suffix must change before the hash here does.
        assert_eq!(names, BYTES);
        let (best, fast) = lengths.split_at(CODED.len());
        assert!(
            best.iter().zip(fast).all(|(best, fast)| best < fast),
            "{lengths:?}"
        );
    }

    #[test]
    fn a_body_that_ends_early_or_late_or_is_broken_fails() {
        let content = sample(70_000);
        for coding in CODED {
            let whole = encode(coding, Quality::Fast, &content, usize::MAX);
            for cut in [0, 1, 5, whole.len() / 2, whole.len() - 1] {
                assert!(
                    decode(coding, &whole[..cut], 4096).is_err(),
                    "{coding:?} cut at {cut}"
                );
            }
            for piece in [1, whole.len(), usize::MAX] {
                let more = [whole.as_slice(), b"garbage"].concat();
                assert!(decode(coding, &more, piece).is_err(), "{coding:?} with more");
                let zeros = [whole.as_slice(), &[0; 16]].concat();
                assert!(decode(coding, &zeros, piece).is_err(), "{coding:?} with zeros");
            }
            assert!(decode(coding, b"not coded at all, is it", 4096).is_err());
        }
        let mut flipped = encode(Coding::Gzip, Quality::Fast, &content, usize::MAX);
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        assert!(decode(Coding::Gzip, &flipped, 4096).is_err());
    }

    #[test]
    fn several_members_are_one_body() {
        let (one, two) = (sample(50_000), b"and more".to_vec());
        for coding in [Coding::Gzip, Coding::Zstd] {
            let parts = [
                encode(coding, Quality::Fast, &one, usize::MAX),
                encode(coding, Quality::Fast, &[], usize::MAX),
                encode(coding, Quality::Fast, &two, usize::MAX),
            ];
            let coded = parts.concat();
            for piece in [1, 7, parts[0].len(), usize::MAX] {
                let content = decode(coding, &coded, piece).unwrap();
                assert!(
                    content == [one.as_slice(), &two].concat(),
                    "{coding:?} by {piece}"
                );
            }
            let cut = &coded[..coded.len() - 1];
            assert!(decode(coding, cut, usize::MAX).is_err());
        }
        let one = encode(Coding::Br, Quality::Fast, b"one", usize::MAX);
        assert!(decode(Coding::Br, &one.repeat(2), usize::MAX).is_err());
    }

    #[test]
    fn beginnings_are_counted() {
        let empty = encode(Coding::Gzip, Quality::Fast, &[], usize::MAX);
        let most = empty.repeat(STREAMS_MAX as usize);
        assert!(decode(Coding::Gzip, &most, usize::MAX).unwrap().is_empty());
        assert!(decode(Coding::Gzip, &[most, empty].concat(), usize::MAX).is_err());
    }

    #[test]
    fn a_bomb_comes_out_in_small_pieces() {
        let zeros = vec![0; 4 << 20];
        for coding in CODED {
            let coded = encode(coding, Quality::Fast, &zeros, usize::MAX);
            assert!(coded.len() < 8192, "{coding:?} {}", coded.len());
            assert_eq!(decode(coding, &coded, usize::MAX).unwrap().len(), zeros.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5))]

        #[test]
        fn what_is_coded_is_decoded_however_it_is_cut(
            length in 0..BLOCK + 20_000,
            noise in prop::collection::vec(any::<u8>(), 0..300),
            cuts in prop::collection::vec(1..50_000_usize, 1..8),
            piece in 1..5000_usize,
            which in 0..3_usize,
        ) {
            let coding = CODED[which];
            let content = [noise, sample(length)].concat();
            let mut encoder = Encoder::new(coding, Quality::Fast).unwrap();
            let mut coded = Vec::new();
            let mut rest = content.as_slice();
            for cut in cuts.into_iter().cycle() {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                coded.extend_from_slice(&encoder.write(head).unwrap());
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            coded.extend_from_slice(&encoder.finish().unwrap());
            prop_assert!(coded == encode(coding, Quality::Fast, &content, usize::MAX));
            prop_assert!(decode(coding, &coded, piece).unwrap() == content);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), which in 0..3_usize) {
            let _ = decode(CODED[which], &bytes, 64);
            let mut coded = encode(CODED[which], Quality::Fast, &sample(500), usize::MAX);
            for (at, byte) in bytes.iter().enumerate().take(4) {
                let index = (at * 97 + usize::from(*byte)) % coded.len();
                coded[index] ^= byte;
            }
            let _ = decode(CODED[which], &coded, 64);
        }
    }
}
