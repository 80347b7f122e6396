//! One question and the judgement of its answer: every byte of it is compared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use edge::representation::coding::Coding;
use edge::representation::encoder::Decoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, HOST as HOST_FIELD, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;

use super::{Door, Outcome, Protocol, fingerprint};
use crate::content::{Content, Object};

/// One question.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) object: Object,
    /// The codings that are accepted.
    pub(crate) accepts: Option<&'static str>,
    /// Ask with the entity tag of the last answer.
    pub(crate) conditional: bool,
}

/// What an answer was.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Bytes of the body as it was sent.
    pub(crate) wire_bytes: u64,
}

/// Compares answers with what was to be answered.
#[derive(Debug)]
pub(crate) struct Judge {
    content: Arc<Content>,
    memory: Mutex<Memory>,
}

/// Coded bodies that were decoded and found right are known by their fingerprints from then on.
#[derive(Debug, Default)]
struct Memory {
    right: HashMap<(Object, Coding), Vec<u64>>,
    tags: HashMap<Object, HeaderValue>,
    last: Option<(Object, Bytes)>,
}

/// No more entity tags than these are remembered: the most popular are among the first.
const TAGS_MAX: usize = 65_536;

impl Ask {
    /// Asks for an object, as it is.
    pub(crate) fn plain(object: Object) -> Self {
        Self {
            object,
            accepts: None,
            conditional: false,
        }
    }
}

impl Judge {
    /// A judge who knows this content.
    pub(crate) fn new(content: Arc<Content>) -> Self {
        Self {
            content,
            memory: Mutex::default(),
        }
    }

    /// The request of a question.
    pub(crate) fn request(&self, ask: &Ask, door: &Door) -> Outcome<Request<Empty<Bytes>>> {
        let path = self.content.path(ask.object);
        let mut request = match door.protocol() {
            Protocol::H1 => Request::get(path).header(HOST_FIELD, door.authority()),
            Protocol::H2 => Request::get(format!("https://{}{path}", door.authority())),
        };
        if let Some(accepts) = ask.accepts {
            request = request.header(ACCEPT_ENCODING, accepts);
        }
        if ask.conditional
            && let Some(tag) = self.with(|memory| memory.tags.get(&ask.object).cloned())
        {
            request = request.header(IF_NONE_MATCH, tag);
        }
        request.body(Empty::new()).map_err(|error| error.to_string())
    }

    /// Whether a condition can be made for this object.
    pub(crate) fn knows_tag(&self, object: Object) -> bool {
        self.with(|memory| memory.tags.contains_key(&object))
    }

    /// Reads an answer to its end, and says what is wrong with it.
    pub(crate) async fn judge(&self, ask: &Ask, answer: Response<Incoming>) -> Outcome<Seen> {
        let (head, body) = answer.into_parts();
        let wire_bytes = match head.status {
            StatusCode::NOT_MODIFIED if ask.conditional => 0,
            StatusCode::OK => match head.headers.get(CONTENT_ENCODING) {
                None => self.compare(ask.object, body).await?,
                Some(coding) => self.compare_decoded(ask, coding, body).await?,
            },
            status => return Err(format!("status {status}")),
        };
        if let Some(tag) = head.headers.get(ETAG) {
            self.with(|memory| {
                if memory.tags.len() < TAGS_MAX || memory.tags.contains_key(&ask.object) {
                    memory.tags.insert(ask.object, tag.clone());
                }
            });
        }
        Ok(Seen {
            status: head.status,
            headers: head.headers,
            wire_bytes,
        })
    }

    async fn compare(&self, object: Object, mut body: Incoming) -> Outcome<u64> {
        let expected = self.expected(object);
        let mut rest = &expected[..];
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("the body broke: {error}"))?;
            let Ok(piece) = frame.into_data() else { continue };
            rest = rest
                .strip_prefix(&piece[..])
                .ok_or_else(|| "the body differs from what was to be served".to_owned())?;
        }
        if rest.is_empty() {
            return Ok(expected.len() as u64);
        }
        Err(format!("{} bytes of the body are missing", rest.len()))
    }

    async fn compare_decoded(&self, ask: &Ask, coding: &HeaderValue, body: Incoming) -> Outcome<u64> {
        let token = coding.to_str().unwrap_or_default();
        let accepted = ask.accepts.unwrap_or_default();
        if !accepted.split(", ").any(|name| name == token) {
            return Err(format!("coded with {token:?}, which was not accepted"));
        }
        let coding = Coding::from_token(token).ok_or_else(|| format!("coded with {token:?}"))?;
        let body = body
            .collect()
            .await
            .map_err(|error| format!("the body broke: {error}"))?;
        let body = body.to_bytes();
        let (length, mark) = (body.len() as u64, fingerprint(&body));
        let known = self.with(|memory| {
            let right = memory.right.get(&(ask.object, coding));
            right.is_some_and(|marks| marks.contains(&mark))
        });
        if known {
            return Ok(length);
        }
        let decoded =
            decode(coding, body).map_err(|error| format!("{token} that cannot be decoded: {error}"))?;
        if decoded != self.expected(ask.object) {
            return Err("the decoded body differs from what was to be served".to_owned());
        }
        self.with(|memory| memory.right.entry((ask.object, coding)).or_default().push(mark));
        Ok(length)
    }

    fn expected(&self, object: Object) -> Bytes {
        if matches!(object, Object::File(_)) {
            return self.content.bytes(object);
        }
        self.with(|memory| match &memory.last {
            Some((last, bytes)) if *last == object => bytes.clone(),
            _ => {
                let bytes = self.content.bytes(object);
                memory.last = Some((object, bytes.clone()));
                bytes
            }
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Memory) -> T) -> T {
        act(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn decode(coding: Coding, mut coded: Bytes) -> std::io::Result<Bytes> {
    let Some(mut decoder) = Decoder::new(coding) else {
        return Ok(coded);
    };
    let mut whole = BytesMut::new();
    loop {
        let piece = decoder.decode(&mut coded)?;
        if piece.is_empty() {
            break;
        }
        whole.extend_from_slice(&piece);
    }
    decoder.finish()?;
    Ok(whole.freeze())
}
