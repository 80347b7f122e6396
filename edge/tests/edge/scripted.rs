//! An origin that answers with bytes by hand, and remembers what it was asked to the letter: for what no bucket sends,
//! and for what must never reach one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use edge::config::{Config, OriginKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The peer. It ends with the test's runtime.
pub(crate) struct Scripted {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// Answers each request with what `answer` makes of its head, and closes.
    pub(crate) async fn start(answer: impl Fn(&str) -> Vec<u8> + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let drain = edge::drain::Drain::default();
        let each = drain.clone();
        drain.spawn("scripted", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (seen, answer) = (Arc::clone(&seen), answer.clone());
                each.spawn("scripted-connection", async move {
                    let _ = converse(stream, &seen, &answer).await;
                });
            }
        });
        Self { address, heads }
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// Puts this peer into the place of the bucket.
    pub(crate) fn stand_in(&self, config: &mut Config) {
        for origin in &mut config.origins {
            let OriginKind::S3(s3) = &mut origin.kind else {
                continue;
            };
            for bucket in &mut s3.buckets {
                bucket.endpoint = Some(format!("http://{}", self.address));
            }
        }
    }
}

/// A 200 with these fields, each line ended by CRLF, and this body.
pub(crate) fn ok(fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n{fields}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// As [`ok`], in chunks, so that its length is not known before its end.
pub(crate) fn chunked(fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n{fields}\r\n");
    let mut bytes = head.into_bytes();
    for piece in body.chunks(16 * 1024) {
        bytes.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        bytes.extend(piece);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

async fn converse(
    mut stream: TcpStream,
    seen: &Mutex<Vec<String>>,
    answer: &impl Fn(&str) -> Vec<u8>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    let bytes = answer(&head);
    seen.lock().unwrap().push(head);
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}
