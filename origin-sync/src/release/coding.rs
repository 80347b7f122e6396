//! Codings of a release: gzip by zopfli, br, and `dcb`, which is br against a file that the client holds already (RFC 9842).
//!
//! Whole values in, whole values out, on the caller's thread: they take from milliseconds to many seconds, so callers put
//! them where that does no harm. What is made should be decoded again and compared before anybody is sent it.

use std::fmt;
use std::io::Read;
use std::num::NonZeroU64;

use brotli::enc::{BrotliEncoderParams, StandardAlloc};
use serde::{Deserialize, Serialize};

use super::digest::Sha256;

/// The brotli quality of a release.
pub const QUALITY_RELEASE: u32 = 11;
/// The brotli quality of a delta that is made while somebody waits.
pub const QUALITY_ON_DEMAND: u32 = 5;
/// A dictionary must fit the window of 16 MiB that RFC 9842, section 4, allows; longer ones are not used.
pub const DICTIONARY_BYTES_MAX: usize = (1 << WINDOW_BITS_MAX) - 16;
/// What a `dcb` body begins with, before the SHA-256 of its dictionary: RFC 9842, section 4.
pub const DCB_MAGIC: [u8; 4] = [0xff, b'D', b'C', b'B'];

/// The window that every decoder has; larger ones need a format that browsers do not read.
const WINDOW_BITS_MAX: u32 = 24;
const WINDOW_BITS: u32 = 22;
const BUFFER_BYTES: usize = 64 * 1024;
/// Above this, zopfli's rounds are fewer: they take seconds, and gain ever less.
const ZOPFLI_WHOLE_BYTES: usize = 512 * 1024;

/// A coding, as Content-Encoding spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CodingName {
    /// Brotli (RFC 7932).
    Br,
    /// Brotli against a dictionary (RFC 9842).
    Dcb,
    /// gzip (RFC 1952).
    Gzip,
}

impl CodingName {
    /// As Content-Encoding spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Dcb => "dcb",
            Self::Gzip => "gzip",
        }
    }
}

impl fmt::Display for CodingName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Why something was not coded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodingError {
    /// A dictionary is missing, is there where none belongs, is too long, or is another one than the body names.
    #[error("{0} needs the right dictionary, of at most 16 MiB")]
    Dictionary(CodingName),
    /// The bytes are not of this coding, or the coder failed.
    #[error("{name} failed")]
    Failed {
        /// The coding.
        name: CodingName,
        /// What it says.
        source: std::io::Error,
    },
    /// What comes out is longer than it may be.
    #[error("{name} comes to more than {max} bytes")]
    TooLong {
        /// The coding.
        name: CodingName,
        /// The limit.
        max: u64,
    },
}

/// Codes with zopfli: as small as gzip gets, and slow.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>, CodingError> {
    let rounds = if bytes.len() > ZOPFLI_WHOLE_BYTES { 5 } else { 15 };
    let options = zopfli::Options {
        iteration_count: NonZeroU64::new(rounds).unwrap_or(NonZeroU64::MIN),
        ..zopfli::Options::default()
    };
    let mut coded = Vec::with_capacity(bytes.len() / 3);
    zopfli::compress(options, zopfli::Format::Gzip, bytes, &mut coded).map_err(failed(CodingName::Gzip))?;
    Ok(coded)
}

/// Codes with brotli, at a quality of 0 to 11.
pub fn br(bytes: &[u8], quality: u32) -> Result<Vec<u8>, CodingError> {
    let mut coded = Vec::with_capacity(bytes.len() / 4);
    brotli_into(&mut coded, bytes, &[], quality).map_err(failed(CodingName::Br))?;
    Ok(coded)
}

/// Codes against a dictionary, at a quality of 2 to 11: header and stream, as they are sent.
pub fn dcb(bytes: &[u8], dictionary: &[u8], quality: u32) -> Result<Vec<u8>, CodingError> {
    if dictionary.is_empty() || dictionary.len() > DICTIONARY_BYTES_MAX {
        return Err(CodingError::Dictionary(CodingName::Dcb));
    }
    let mut coded = Vec::with_capacity(bytes.len() / 16 + 64);
    coded.extend_from_slice(&DCB_MAGIC);
    coded.extend_from_slice(Sha256::of(dictionary).as_bytes());
    brotli_into(&mut coded, bytes, dictionary, quality.max(2)).map_err(failed(CodingName::Dcb))?;
    Ok(coded)
}

/// Decodes; `dictionary` is for `dcb` and for nothing else. More than `bytes_max` is an error, found before it is held.
pub fn decode(
    name: CodingName,
    coded: &[u8],
    dictionary: Option<&[u8]>,
    bytes_max: u64,
) -> Result<Vec<u8>, CodingError> {
    match (name, dictionary) {
        (CodingName::Gzip, None) => limited(name, flate2::read::GzDecoder::new(coded), bytes_max),
        (CodingName::Br, None) => limited(name, brotli::Decompressor::new(coded, BUFFER_BYTES), bytes_max),
        (CodingName::Dcb, Some(dictionary)) => {
            let stream = coded
                .strip_prefix(DCB_MAGIC.as_slice())
                .and_then(|rest| rest.strip_prefix(Sha256::of(dictionary).as_bytes().as_slice()))
                .ok_or(CodingError::Dictionary(name))?;
            let mut decoder = brotli::Decompressor::new(stream, BUFFER_BYTES);
            if !decoder.attach_dictionary(dictionary.to_vec().into()) {
                return Err(CodingError::Dictionary(name));
            }
            limited(name, decoder, bytes_max)
        }
        _ => Err(CodingError::Dictionary(name)),
    }
}

fn limited(name: CodingName, decoder: impl Read, bytes_max: u64) -> Result<Vec<u8>, CodingError> {
    let mut bytes = Vec::new();
    decoder
        .take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed(name))?;
    if bytes.len() as u64 > bytes_max {
        return Err(CodingError::TooLong { name, max: bytes_max });
    }
    Ok(bytes)
}

fn failed(name: CodingName) -> impl Fn(std::io::Error) -> CodingError {
    move |source| CodingError::Failed { name, source }
}

fn brotli_into(
    coded: &mut Vec<u8>,
    mut bytes: &[u8],
    dictionary: &[u8],
    quality: u32,
) -> std::io::Result<()> {
    let reach = bytes.len().saturating_add(dictionary.len());
    let window = if reach > (1 << WINDOW_BITS) - 16 {
        WINDOW_BITS_MAX
    } else {
        WINDOW_BITS
    };
    let params = BrotliEncoderParams {
        quality: i32::try_from(quality.min(11)).unwrap_or(11),
        lgwin: i32::try_from(window).unwrap_or(22),
        size_hint: bytes.len(),
        ..BrotliEncoderParams::default()
    };
    let mut input = vec![0; BUFFER_BYTES];
    let mut output = vec![0; BUFFER_BYTES];
    brotli::enc::BrotliCompressCustomIoCustomDict(
        &mut brotli::IoReaderWrapper(&mut bytes),
        &mut brotli::IoWriterWrapper(coded),
        &mut input,
        &mut output,
        &params,
        StandardAlloc::default(),
        &mut |_, _, _, _| (),
        dictionary,
        std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the coder ended early"),
    )
    .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text that resembles a script: words from a small set, the same each time.
    fn script(words: usize, change: &str) -> Vec<u8> {
        let mut state = 1_u32;
        let mut text = String::new();
        for place in 0..words {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.push_str(
                ["function ", "return ", "var x", "=", "();\n", "this."][(state >> 16) as usize % 6],
            );
            text.push_str(&(state >> 20).to_string());
            if place == words / 2 {
                text.push_str(change);
            }
        }
        text.into_bytes()
    }

    #[test]
    fn each_coding_decodes_to_what_it_was_made_of() {
        let old = script(4_000, "");
        for bytes in [script(4_000, "a new function"), Vec::new(), vec![7]] {
            let max = bytes.len() as u64;
            let gzip = gzip(&bytes).unwrap();
            assert_eq!(decode(CodingName::Gzip, &gzip, None, max).unwrap(), bytes);
            let br = br(&bytes, 9).unwrap();
            assert_eq!(decode(CodingName::Br, &br, None, max).unwrap(), bytes);
            for quality in [QUALITY_ON_DEMAND, QUALITY_RELEASE] {
                let dcb = dcb(&bytes, &old, quality).unwrap();
                assert_eq!(dcb[..4], DCB_MAGIC);
                assert_eq!(dcb[4..36], *Sha256::of(&old).as_bytes());
                assert_eq!(decode(CodingName::Dcb, &dcb, Some(&old), max).unwrap(), bytes);
                if bytes.len() > 1_000 {
                    assert!(dcb.len() * 20 < br.len(), "{} against {}", dcb.len(), br.len());
                }
            }
        }
    }

    #[test]
    fn the_wrong_dictionary_and_broken_bytes_are_errors() {
        let old = script(100, "");
        let new = script(100, "x");
        let coded = dcb(&new, &old, 5).unwrap();
        let max = new.len() as u64;
        assert!(matches!(
            decode(CodingName::Dcb, &coded, Some(&new), max),
            Err(CodingError::Dictionary(_))
        ));
        assert!(matches!(
            decode(CodingName::Dcb, &coded, None, max),
            Err(CodingError::Dictionary(_))
        ));
        assert!(matches!(
            decode(CodingName::Br, &coded[36..], Some(&old), max),
            Err(CodingError::Dictionary(_))
        ));
        assert!(matches!(dcb(&new, &[], 5), Err(CodingError::Dictionary(_))));
        let short = &coded[..coded.len() - 1];
        assert!(matches!(
            decode(CodingName::Dcb, short, Some(&old), max),
            Err(CodingError::Failed { .. })
        ));
        assert!(matches!(
            decode(CodingName::Gzip, b"x", None, max),
            Err(CodingError::Failed { .. })
        ));
    }

    #[test]
    fn a_bomb_is_found_before_it_is_held() {
        let bomb = br(&vec![0; 10_000_000], 5).unwrap();
        assert!(bomb.len() < 1_000);
        assert!(matches!(
            decode(CodingName::Br, &bomb, None, 999),
            Err(CodingError::TooLong { max: 999, .. })
        ));
    }

    #[test]
    fn two_files_that_pass_the_small_window_together_still_decode() {
        let old = script(250_000, "");
        let new = script(250_000, "a new function");
        assert!(old.len() + new.len() > 1 << WINDOW_BITS);
        let coded = dcb(&new, &old, 5).unwrap();
        assert_eq!(
            decode(CodingName::Dcb, &coded, Some(&old), new.len() as u64).unwrap(),
            new
        );
        assert!(coded.len() < 1_000, "{}", coded.len());
    }
}
