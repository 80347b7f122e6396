//! Line ends of HTTP/1 heads, as strict as RFC 9112 allows.
//!
//! The parser takes a bare LF for the end of a line, and drops a fragment from a target without a word. What two readers
//! take for different things is how requests are smuggled, so neither reaches it: the offending byte is overwritten
//! with NUL, which no part of a head may hold, and the parser answers 400. Content is not told from heads here. It need
//! not be: no content is ever read, and a connection ends with the first of it.

use memchr::memchr;

/// Follows the bytes of one connection from line to line.
#[derive(Debug)]
pub(super) struct Lines {
    /// Whether the last byte seen was a CR.
    after_cr: bool,
    /// Whether the line that is being read has bytes already.
    begun: bool,
    in_request_line: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            after_cr: false,
            begun: false,
            in_request_line: true,
        }
    }
}

impl Lines {
    /// Spoils what must not be in `bytes`, which follow those of the call before.
    pub(super) fn spoil(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while let Some(at) = memchr(b'\n', rest) {
            let (line, tail) = rest.split_at_mut(at + 1);
            self.line(line);
            rest = tail;
        }
        let Some((last, before)) = rest.split_last() else {
            return;
        };
        self.after_cr = *last == b'\r';
        self.begun |= !before.is_empty() || !self.after_cr;
        self.spoil_fragment(rest);
    }

    /// `line` ends with an LF.
    fn line(&mut self, line: &mut [u8]) {
        self.spoil_fragment(line);
        let empty = match line {
            [before @ .., b'\r', _] => before.is_empty() && !self.begun,
            [_] if self.after_cr => !self.begun,
            [.., feed] => {
                *feed = 0;
                false
            }
            [] => false,
        };
        // An empty line ends a head, or stands before one (RFC 9112, 2.2).
        *self = Self {
            after_cr: false,
            begun: false,
            in_request_line: empty,
        };
    }

    /// RFC 9112, 3.2: no form of a target has a fragment.
    fn spoil_fragment(&self, line: &mut [u8]) {
        if self.in_request_line
            && let Some(sign) = memchr(b'#', line).and_then(|at| line.get_mut(at))
        {
            *sign = 0;
        }
    }
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
}
