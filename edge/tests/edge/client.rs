//! A client that does only what it is told: raw bytes, HTTP/1 responses, HTTP/2 frames by hand.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing a test waits for takes longer, unless the test says so.
const PATIENCE: Duration = Duration::from_secs(60);

trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

/// One connection.
pub(crate) struct TestClient {
    stream: Box<dyn Bytes>,
    received: Vec<u8>,
}

/// An HTTP/1 response as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Waits for `future`, but not for ever.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

impl TestClient {
    pub(crate) async fn plain(address: SocketAddr) -> Self {
        Self::try_plain(address).await.unwrap()
    }

    /// As [`TestClient::plain`], for a server that may reset at once.
    pub(crate) async fn try_plain(address: SocketAddr) -> std::io::Result<Self> {
        let tcp = soon("connect", TcpStream::connect(address)).await?;
        tcp.set_nodelay(true)?;
        Ok(Self {
            stream: Box::new(tcp),
            received: Vec::new(),
        })
    }

    pub(crate) async fn tls(address: SocketAddr, ca: &Path, alpn: &[&str]) -> Self {
        let tcp = soon("connect", TcpStream::connect(address)).await.unwrap();
        Self::tls_over(tcp, ca, alpn).await
    }

    /// As [`TestClient::tls`], over a connection that has had no handshake yet.
    pub(crate) async fn tls_over(tcp: TcpStream, ca: &Path, alpn: &[&str]) -> Self {
        // As every client of HTTP does: a small write waits for no acknowledgement.
        tcp.set_nodelay(true).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp);
        Self {
            stream: Box::new(soon("handshake", tls).await.unwrap()),
            received: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// As [`TestClient::send`], for a server that may have closed.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        soon("send", async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        })
        .await
    }

    /// Ends our side only.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Reads more; `false` at the end, clean or not.
    async fn more(&mut self) -> bool {
        let read = soon("bytes", self.stream.read_buf(&mut self.received)).await;
        matches!(read, Ok(count) if count > 0)
    }

    /// Takes `count` bytes; `None` at an end before.
    pub(crate) async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.received.len() < count {
            if !self.more().await {
                return None;
            }
        }
        Some(self.received.drain(..count).collect())
    }

    /// Everything up to the end.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.received)
    }

    /// Whether the server closes, without another byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.rest().await.is_empty()
    }

    /// One HTTP/1 response, to a request that was not HEAD.
    pub(crate) async fn answer(&mut self) -> Answer {
        self.try_answer(false).await.expect("a response")
    }

    /// One HTTP/1 response to HEAD.
    pub(crate) async fn answer_to_head(&mut self) -> Answer {
        self.try_answer(true).await.expect("a response")
    }

    /// One HTTP/1 response; `None` when the connection ends instead, or in the midst of it.
    pub(crate) async fn try_answer(&mut self, to_head: bool) -> Option<Answer> {
        let mut answer = self.head().await?;
        let status = answer.status;
        if to_head || status == 204 || status == 304 {
            return Some(answer);
        }
        if let Some(length) = answer.field("content-length") {
            let length = length.parse().unwrap();
            answer.body = self.take(length).await?;
        } else if answer.field("transfer-encoding") == Some("chunked") {
            answer.body = self.take_chunks().await?;
        } else {
            answer.body = self.rest().await;
        }
        Some(answer)
    }

    /// The head of an HTTP/1 response; its body is left where it is. `None` when the connection ends instead.
    pub(crate) async fn head(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8(self.take(end).await?).unwrap();
        let status = head[9..12].parse().unwrap();
        Some(Answer {
            status,
            head,
            body: Vec::new(),
        })
    }

    async fn take_chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let at = loop {
                if let Some(at) = self.received.windows(2).position(|two| two == b"\r\n") {
                    break at;
                }
                if !self.more().await {
                    return None;
                }
            };
            let line = String::from_utf8(self.take(at + 2).await?).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let chunk = self.take(size + 2).await?;
            if size == 0 {
                return Some(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }

    /// Begins HTTP/2 with these settings.
    pub(crate) async fn begin_h2(&mut self, settings: &[(u16, u32)]) {
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let mut payload = Vec::new();
        // No dynamic table for the server's fields, so that a status can be read without one.
        for (id, value) in [&[(1, 0)], settings].concat() {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        self.send(frame(SETTINGS, 0, 0, &payload)).await;
    }

    /// The next frame; `None` at the end.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        let head = self.take(9).await?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload: self.take(length).await?,
        })
    }

    /// Frames up to the first that `wanted` picks; acknowledges settings on the way.
    pub(crate) async fn frame_until(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Frame {
        soon(what, async {
            let mut farewell = None;
            loop {
                let frame = self
                    .frame()
                    .await
                    .unwrap_or_else(|| panic!("the connection ended before {what}: {farewell:?}"));
                if frame.kind == GOAWAY {
                    farewell = Some(frame.payload.clone());
                }
                if frame.kind == SETTINGS && frame.flags & 1 == 0 {
                    let _ = self.try_send(self::frame(SETTINGS, 1, 0, &[])).await;
                }
                if wanted(&frame) {
                    return frame;
                }
            }
        })
        .await
    }

    /// Frames to the end of the connection; the error code of a GOAWAY among them.
    pub(crate) async fn goaway(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.frame().await {
            if frame.kind == GOAWAY {
                code = Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
            }
        }
        code
    }

    /// The status of the response on `stream`.
    pub(crate) async fn h2_status(&mut self, stream: u32) -> u16 {
        let headers = self
            .frame_until("headers", |frame| frame.kind == HEADERS && frame.stream == stream)
            .await;
        status(&headers.payload)
    }
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// An HTTP/2 frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// The bytes of a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literals without indexing (RFC 7541, 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            integer(&mut bytes, text.len());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// An integer with a prefix of 7 bits (RFC 7541, 5.1).
fn integer(bytes: &mut Vec<u8>, number: usize) {
    if number < 127 {
        bytes.push(u8::try_from(number).unwrap());
        return;
    }
    bytes.push(127);
    let mut rest = number - 127;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

/// A GET of `path` on `stream`, complete.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    request(
        stream,
        &[
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", path),
        ],
    )
}

/// A request without content on `stream`.
pub(crate) fn request(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, 5, stream, &block(fields))
}

/// The status at the start of a header block as h2 writes it: indexed, or a literal whose name is indexed.
pub(crate) fn status(payload: &[u8]) -> u16 {
    match payload {
        // A change of the table's size comes first (RFC 7541, 4.2).
        [0x20, rest @ ..] => status(rest),
        [0x88, ..] => 200,
        [0x89, ..] => 204,
        [0x8a, ..] => 206,
        [0x8b, ..] => 304,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        // The value may be Huffman-coded: digits 0 to 2 take 5 bits and the others 6 (RFC 7541, appendix B).
        [first, length, rest @ ..] if first & 0x0f == 8 => {
            let raw = &rest[..usize::from(length & 0x7f)];
            if length & 0x80 == 0 {
                std::str::from_utf8(raw).unwrap().parse().unwrap()
            } else {
                huffman_digits(raw)
            }
        }
        _ => panic!("no status in {payload:02x?}"),
    }
}

fn huffman_digits(raw: &[u8]) -> u16 {
    let bits: String = raw.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut rest, mut number) = (bits.as_str(), 0);
    for _ in 0..3 {
        let short = u16::from_str_radix(&rest[..5], 2).unwrap();
        let (digit, length) = if short <= 2 {
            (short, 5)
        } else {
            (u16::from_str_radix(&rest[..6], 2).unwrap() - 0b01_1001 + 3, 6)
        };
        number = number * 10 + digit;
        rest = &rest[length..];
    }
    number
}
