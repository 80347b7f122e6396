//! Line ends and framing of HTTP/1 requests, as strict as RFC 9112 allows.
//!
//! The parser takes a bare LF for the end of a line, and drops a fragment from a target without a word. What two readers
//! take for different things is how requests are smuggled, so neither reaches it: the offending byte is overwritten
//! with NUL, which no part of a head may hold, and the parser answers 400. Content passes untouched; where it begins
//! and ends is followed here by the plainest framing there is: one Content-Length, or `chunked` alone. A head that says
//! anything else of its framing is [`Lines::is_ambiguous`], and its request is refused.

use memchr::memchr;

/// Bytes that are kept of a line which comes in pieces. No honest line of framing is longer.
const KEPT_BYTES: usize = 64;

/// Follows the bytes of one connection from line to line.
#[derive(Debug)]
pub struct Lines {
    part: Part,
    framing: Framing,
    ambiguous: bool,
    /// Whether the last byte seen was a CR.
    after_cr: bool,
    /// Whether the line that is being read has bytes already.
    begun: bool,
    /// The beginning of a line of which only pieces have come.
    kept: [u8; KEPT_BYTES],
    kept_bytes: usize,
}

/// What is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    RequestLine,
    Fields,
    /// So many bytes of content; a chunk's are followed by an empty line.
    Content {
        left: u64,
        is_chunk: bool,
    },
    ChunkSize,
    ChunkEnd,
    Trailers,
    /// The framing is not understood: the parser refuses it too, and the connection ends.
    Lost,
}

/// What a head says of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Length(u64),
    Chunked,
    Ambiguous,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            part: Part::RequestLine,
            framing: Framing::None,
            ambiguous: false,
            after_cr: false,
            begun: false,
            kept: [0; KEPT_BYTES],
            kept_bytes: 0,
        }
    }
}

impl Lines {
    /// Whether a head has said two things of its content's length.
    pub fn is_ambiguous(&self) -> bool {
        self.ambiguous
    }

    /// Spoils what must not be in `bytes`, which follow those of the call before.
    pub fn spoil(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = match self.part {
                Part::Lost => return,
                Part::Content { left, .. } => usize::try_from(left).unwrap_or(usize::MAX).min(rest.len()),
                _ => memchr(b'\n', rest).map_or(rest.len(), |at| at + 1),
            };
            let (piece, tail) = rest.split_at_mut(count);
            match self.part {
                Part::Content { left, is_chunk } => self.pass(left.saturating_sub(count as u64), is_chunk),
                _ if piece.last() == Some(&b'\n') => self.line(piece),
                _ => self.keep(piece),
            }
            rest = tail;
        }
    }

    /// Content went by; `left` is still to come.
    fn pass(&mut self, left: u64, is_chunk: bool) {
        self.part = match (left, is_chunk) {
            (0, true) => Part::ChunkEnd,
            (0, false) => Part::RequestLine,
            _ => Part::Content { left, is_chunk },
        };
    }

    /// A piece of a line, of which more is to come.
    fn keep(&mut self, piece: &mut [u8]) {
        self.spoil_fragment(piece);
        let Some((last, before)) = piece.split_last() else {
            return;
        };
        let was_after_cr = self.after_cr;
        self.after_cr = *last == b'\r';
        self.begun |= was_after_cr || !before.is_empty() || !self.after_cr;
        self.remember(piece);
    }

    fn remember(&mut self, piece: &[u8]) {
        let free = self.kept.get_mut(self.kept_bytes..).unwrap_or_default();
        for (place, byte) in free.iter_mut().zip(piece) {
            *place = *byte;
        }
        self.kept_bytes = self.kept_bytes.saturating_add(piece.len());
    }

    /// `line` ends with an LF.
    fn line(&mut self, line: &mut [u8]) {
        self.spoil_fragment(line);
        let (empty, sound) = match line {
            [before @ .., b'\r', _] => (before.is_empty() && !self.begun && !self.after_cr, true),
            [_] if self.after_cr => (!self.begun, true),
            [.., feed] => {
                *feed = 0;
                (false, false)
            }
            [] => (false, false),
        };
        if !sound && !matches!(self.part, Part::RequestLine | Part::Fields) {
            self.part = Part::Lost;
        } else if self.kept_bytes == 0 {
            self.read(empty, trimmed(line), false);
        } else {
            self.remember(line);
            let (kept, is_cut) = (self.kept, self.kept_bytes > KEPT_BYTES);
            let whole = kept.get(..self.kept_bytes.min(KEPT_BYTES)).unwrap_or_default();
            self.read(empty, trimmed(whole), is_cut);
        }
        (self.after_cr, self.begun, self.kept_bytes) = (false, false, 0);
    }

    /// A whole line; `is_cut` when only its beginning is known.
    fn read(&mut self, empty: bool, line: &[u8], is_cut: bool) {
        self.part = match self.part {
            // An empty line may stand before a head (RFC 9112, 2.2).
            Part::RequestLine if empty => Part::RequestLine,
            Part::RequestLine => {
                self.framing = Framing::None;
                Part::Fields
            }
            Part::Fields if empty => self.end_head(),
            Part::Fields => {
                self.framing = self.framing.and(line, is_cut);
                Part::Fields
            }
            Part::ChunkSize => match chunk_size(line) {
                Some(0) => Part::Trailers,
                Some(left) => Part::Content { left, is_chunk: true },
                None => Part::Lost,
            },
            Part::ChunkEnd if empty => Part::ChunkSize,
            Part::Trailers if empty => Part::RequestLine,
            Part::Trailers => Part::Trailers,
            Part::ChunkEnd | Part::Content { .. } | Part::Lost => Part::Lost,
        };
    }

    fn end_head(&mut self) -> Part {
        match self.framing {
            Framing::None | Framing::Length(0) => Part::RequestLine,
            Framing::Length(left) => Part::Content {
                left,
                is_chunk: false,
            },
            Framing::Chunked => Part::ChunkSize,
            Framing::Ambiguous => {
                self.ambiguous = true;
                Part::Lost
            }
        }
    }

    /// RFC 9112, 3.2: no form of a target has a fragment.
    fn spoil_fragment(&self, line: &mut [u8]) {
        if self.part != Part::RequestLine {
            return;
        }
        let mut rest = line;
        while let Some(at) = memchr(b'#', rest) {
            let (_, from) = rest.split_at_mut(at);
            let Some((sign, tail)) = from.split_first_mut() else {
                return;
            };
            *sign = 0;
            rest = tail;
        }
    }
}

impl Framing {
    /// With one more line of the head (RFC 9112, 6.1 to 6.3). Whatever is not plain is ambiguous.
    fn and(self, line: &[u8], is_cut: bool) -> Self {
        let Some(colon) = memchr(b':', line) else {
            return self;
        };
        let (name, value) = line.split_at_checked(colon).unwrap_or((line, &[]));
        let is_length = name.eq_ignore_ascii_case(b"content-length");
        if !is_length && !name.eq_ignore_ascii_case(b"transfer-encoding") {
            return self;
        }
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if self != Self::None || is_cut {
            return Self::Ambiguous;
        }
        if !is_length {
            return match value.eq_ignore_ascii_case(b"chunked") {
                true => Self::Chunked,
                false => Self::Ambiguous,
            };
        }
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(value).ok().filter(|_| digits);
        length
            .and_then(|text| text.parse().ok())
            .map_or(Self::Ambiguous, Self::Length)
    }
}

/// The size at the beginning of a chunk's line (RFC 9112, 7.1). More digits than a size can have are none.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit());
    let digits = line.get(..end.unwrap_or(line.len()))?;
    let text = std::str::from_utf8(digits).ok().filter(|text| text.len() <= 16)?;
    u64::from_str_radix(text, 16).ok()
}

/// A line without its end.
fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r\n").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the bytes are cut, the same ones are spoiled.
    fn check(text: &str, expected: &str) {
        for size in 1..=text.len() {
            let (mut lines, mut bytes) = (Lines::default(), text.as_bytes().to_vec());
            bytes.chunks_mut(size).for_each(|piece| lines.spoil(piece));
            assert_eq!(String::from_utf8(bytes).unwrap(), expected, "{text:?} by {size}");
            assert!(!lines.is_ambiguous(), "{text:?} by {size}");
        }
    }

    #[test]
    fn good_heads_pass_untouched() {
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nReferer: #a\r\n\r\nGET / HTTP/1.1\r\nX: #\r\n\r\n",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn a_bare_line_feed_is_spoiled_wherever_it_stands() {
        check(
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\0Host: a\r\n\r\n",
        );
        check("GET / HTTP/1.1\r\nHost: a\n\n", "GET / HTTP/1.1\r\nHost: a\0\0");
        check(
            "GET / HTTP/1.1\r\nHost: a\r\n\nX",
            "GET / HTTP/1.1\r\nHost: a\r\n\0X",
        );
        check("\nGET", "\0GET");
    }

    #[test]
    fn a_fragment_is_spoiled_in_every_request_line_and_only_there() {
        check(
            "GET /a#b HTTP/1.1\r\nX: #\r\n\r\nGET /#",
            "GET /a\0b HTTP/1.1\r\nX: #\r\n\r\nGET /\0",
        );
        check("\r\nGET /#\r\n", "\r\nGET /\0\r\n");
    }

    #[test]
    fn content_passes_untouched_and_what_follows_it_is_a_head_again() {
        check(
            "POST / HTTP/1.1\r\nContent-Length:  6\r\n\r\na\n#\n\r\nGET /#b",
            "POST / HTTP/1.1\r\nContent-Length:  6\r\n\r\na\n#\n\r\nGET /\0b",
        );
        check(
            "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET /#b",
            "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET /\0b",
        );
        check(
            "PUT / HTTP/1.1\r\nTRANSFER-ENCODING: Chunked\r\n\r\n3;x=1\r\n\n#\n\r\n0A\r\n0123\n56789\r\n0\r\nT: #\r\n\r\nGET /#",
            "PUT / HTTP/1.1\r\nTRANSFER-ENCODING: Chunked\r\n\r\n3;x=1\r\n\n#\n\r\n0A\r\n0123\n56789\r\n0\r\nT: #\r\n\r\nGET /\0",
        );
    }

    #[test]
    fn a_bare_line_feed_between_chunks_is_spoiled() {
        const HEAD: &str = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (bad, spoiled) in [
            ("2;\nxx\r\n0\r\n\r\n", "2;\0xx\r\n0\r\n\r\n"),
            ("2\r\nxx\n0\r\n\r\n", "2\r\nxx\x000\r\n\r\n"),
            ("0\r\nT: a\n\r\n", "0\r\nT: a\0\r\n"),
        ] {
            check(&format!("{HEAD}{bad}"), &format!("{HEAD}{spoiled}"));
        }
    }

    #[test]
    fn two_crs_make_no_empty_line_however_they_are_cut() {
        for size in 1..=16 {
            let mut bytes = b"\r\r\nGET /#a# HTTP/1.1\r\n".to_vec();
            let mut lines = Lines::default();
            bytes.chunks_mut(size).for_each(|piece| lines.spoil(piece));
            assert_eq!(bytes, b"\r\r\nGET /#a# HTTP/1.1\r\n", "cut by {size}");
            let mut bytes = b"GET /#a# HTTP/1.1\r\n".to_vec();
            let mut lines = Lines::default();
            bytes.chunks_mut(size).for_each(|piece| lines.spoil(piece));
            assert_eq!(bytes, b"GET /\0a\0 HTTP/1.1\r\n", "cut by {size}");
        }
    }

    #[test]
    fn framing_that_is_not_plain_is_ambiguous() {
        let padding = " ".repeat(2 * KEPT_BYTES);
        for fields in [
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\ncontent-length: 1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: xchunked",
            "Content-Length: +1",
            "Content-Length: 0x1",
            "Content-Length: 1, 1",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
            &format!("Content-Length: {padding}+1"),
        ] {
            let text = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\nGET /#");
            for size in 1..=text.len() {
                let (mut lines, mut bytes) = (Lines::default(), text.clone().into_bytes());
                bytes.chunks_mut(size).for_each(|piece| lines.spoil(piece));
                assert!(lines.is_ambiguous(), "{fields:?} by {size}");
            }
        }
    }
}
