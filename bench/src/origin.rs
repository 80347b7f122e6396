//! The origin of all that fetch what they do not have: a process of its own, which answers as a bucket does that
//! everybody may read, after a delay if one is set, and counts the questions.
//!
//! The edge asks it by path as it asks S3 (`/bench/KEY`), the others plainly (`/KEY`); those that say which codings they
//! take get the coded files that stand beside.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LAST_MODIFIED, VARY,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use crate::content::{Content, File, Object, cold, generated_at, media_type, tenant};
use crate::error::{Error, Result};
use crate::process::{Child, Spawn};

/// The name of the bucket.
const BUCKET: &str = "/bench/";

/// When everything was written.
const WRITTEN: &str = "Sat, 01 Nov 2025 00:00:00 GMT";

/// A running origin.
#[derive(Debug)]
pub(crate) struct Origin {
    _child: Child,
    pub(crate) address: SocketAddr,
}

impl Origin {
    /// Starts one for the content in `folder`.
    pub(crate) fn start(folder: &Path, log: PathBuf, core: Option<usize>) -> Result<Self> {
        let own = std::env::current_exe().map_err(|error| Error::io("find this program", error))?;
        let words = [
            own.display().to_string(),
            "origin".to_owned(),
            folder.display().to_string(),
        ];
        let spawn = Spawn {
            name: "the origin",
            words: &words,
            core,
            environment: &[],
            log,
            piped: true,
        };
        let mut child = spawn.start()?;
        let mut line = String::new();
        if let Some(output) = child.output() {
            let _ = BufReader::new(output).read_line(&mut line);
        }
        let address = line.trim().parse().map_err(|_| Error::Start {
            name: "the origin".to_owned(),
            why: "it names no address".to_owned(),
            log: child.last_words(),
        })?;
        Ok(Self {
            _child: child,
            address,
        })
    }

    /// How often it has been asked for content.
    pub(crate) fn asked(&self) -> Result<u64> {
        let answer = self.control("/-/asked")?;
        answer
            .parse()
            .map_err(|_| Error::Said(format!("the origin was asked {answer:?} times")))
    }

    /// Makes it wait before each answer.
    pub(crate) fn delay(&self, delay: Duration) -> Result<()> {
        self.control(&format!("/-/delay/{}", delay.as_millis())).map(drop)
    }

    fn control(&self, path: &str) -> Result<String> {
        use std::io::Read as _;
        let failed = |error| Error::io("ask the origin", error);
        let mut stream = std::net::TcpStream::connect(self.address).map_err(failed)?;
        write!(stream, "GET {path} HTTP/1.0\r\nhost: origin\r\n\r\n").map_err(failed)?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(failed)?;
        Ok(text
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned())
            .unwrap_or_default())
    }
}

/// Serves the content of `folder` until the process is ended, and says where.
pub(crate) fn serve(folder: PathBuf) -> Result<()> {
    let shelf = Arc::new(Shelf::new(&Content::read(folder)?));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("start a runtime", error))?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(|error| Error::io("listen", error))?;
        let address = listener
            .local_addr()
            .map_err(|error| Error::io("listen", error))?;
        writeln!(std::io::stdout(), "{address}").map_err(|error| Error::io("print", error))?;
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let _ = stream.set_nodelay(true);
            let shelf = Arc::clone(&shelf);
            crate::load::start(async move {
                let service = hyper::service::service_fn(|request| {
                    let shelf = Arc::clone(&shelf);
                    async move { Ok::<_, Infallible>(shelf.answer(&request).await) }
                });
                // A client that goes away is no fault of ours.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

/// Everything that can be asked for, ready to be given.
struct Shelf {
    files: HashMap<String, (File, HeaderValue)>,
    asked: AtomicU64,
    delay_millis: AtomicU64,
}

impl Shelf {
    fn new(content: &Content) -> Self {
        let files = content.files.iter();
        Self {
            files: files
                .map(|file| (file.path.clone(), (file.clone(), etag(&file.bytes))))
                .collect(),
            asked: AtomicU64::new(0),
            delay_millis: AtomicU64::new(0),
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if let Some(control) = path.strip_prefix("/-/") {
            return self.control(control);
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        let delay = self.delay_millis.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return plain(StatusCode::METHOD_NOT_ALLOWED);
        }
        let key = path.strip_prefix(BUCKET).map(|key| format!("/{key}"));
        let path = key.as_deref().unwrap_or(path);
        let accepted = request.headers().get(ACCEPT_ENCODING);
        let accepted = accepted.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some(answer) = self.find(path, accepted) else {
            return plain(StatusCode::NOT_FOUND);
        };
        if request
            .headers()
            .get(IF_NONE_MATCH)
            .is_some_and(|tag| answer.headers().get(ETAG) == Some(tag))
        {
            let mut unchanged = answer;
            *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
            *unchanged.body_mut() = Full::default();
            return unchanged;
        }
        answer
    }

    fn find(&self, path: &str, accepted: &str) -> Option<Response<Full<Bytes>>> {
        if let Some((file, tag)) = self.files.get(path) {
            let takes = |coding: &str| accepted.split(',').any(|token| token.trim() == coding);
            let (bytes, coding) = match (&file.br, &file.gz) {
                (Some(br), _) if takes("br") => (br, Some("br")),
                (_, Some(gz)) if takes("gzip") => (gz, Some("gzip")),
                _ => (&file.bytes, None),
            };
            let tag = coding.map_or_else(|| tag.clone(), |_| etag(bytes));
            let mut answer = found(path, bytes.clone(), tag);
            if let Some(coding) = coding {
                let coding = HeaderValue::from_static(coding);
                answer.headers_mut().insert(CONTENT_ENCODING, coding);
            }
            if file.br.is_some() {
                let vary = HeaderValue::from_static("Accept-Encoding");
                answer.headers_mut().insert(VARY, vary);
            }
            return Some(answer);
        }
        let bytes = match generated_at(path)? {
            Object::Tenant(id) => tenant(id),
            Object::Cold { number, bytes } => cold(number, bytes),
            Object::File(_) => return None,
        };
        let tag = etag(&bytes);
        Some(found(path, bytes, tag))
    }

    fn control(&self, what: &str) -> Response<Full<Bytes>> {
        if what == "asked" {
            return Response::new(self.asked.load(Ordering::Relaxed).to_string().into());
        }
        let delay = what.strip_prefix("delay/").and_then(|millis| millis.parse().ok());
        delay.map_or_else(
            || plain(StatusCode::NOT_FOUND),
            |millis| {
                self.delay_millis.store(millis, Ordering::Relaxed);
                plain(StatusCode::NO_CONTENT)
            },
        )
    }
}

fn found(path: &str, bytes: Bytes, tag: HeaderValue) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(bytes));
    let fields = answer.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(media_type(path)));
    fields.insert(ETAG, tag);
    fields.insert(LAST_MODIFIED, HeaderValue::from_static(WRITTEN));
    let lifetime = HeaderValue::from_static("public, max-age=31536000, immutable");
    fields.insert(CACHE_CONTROL, lifetime);
    answer
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

/// An entity tag by FNV-1a: equal bytes have equal ones.
fn etag(bytes: &[u8]) -> HeaderValue {
    let text = format!("\"{:016x}\"", crate::load::fingerprint(bytes));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("\"0\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    fn shelf() -> Shelf {
        let file = File {
            path: "/a/b.js".to_owned(),
            bytes: Bytes::from_static(b"plain"),
            br: Some(Bytes::from_static(b"b")),
            gz: Some(Bytes::from_static(b"gz")),
        };
        Shelf::new(&Content {
            folder: PathBuf::new(),
            files: vec![file],
        })
    }

    #[tokio::test]
    async fn the_coding_is_the_best_that_is_accepted() {
        let shelf = shelf();
        for (accepted, body, coding) in [
            ("", "plain", None),
            ("gzip", "gz", Some("gzip")),
            ("gzip, br", "b", Some("br")),
            ("zstd", "plain", None),
        ] {
            let answer = shelf.find("/a/b.js", accepted).unwrap();
            let named = answer.headers().get(CONTENT_ENCODING).cloned();
            assert_eq!(named, coding.map(HeaderValue::from_static), "{accepted}");
            assert_eq!(
                answer.headers().get(CONTENT_TYPE).unwrap(),
                "application/javascript"
            );
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        assert!(shelf().find("/a/c.js", "").is_none());
        assert!(shelf().find("/tenants/05/5.json", "").is_some());
    }
}
