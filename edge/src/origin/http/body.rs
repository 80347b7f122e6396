//! A body as it comes from a server: at a decent pace, to its announced end, or an error.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::Server;
use crate::origin::health::Admission;
use crate::origin::pace::{Pace, WINDOW_DEADLINES};
use crate::origin::{Error, Kind};

/// A body from a server.
#[derive(Debug)]
pub struct Body {
    server: Arc<Server>,
    path: Box<str>,
    stream: Incoming,
    length: Option<u64>,
    received: u64,
    pace: Pace,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    Whole,
    Broken(Error),
}

impl Body {
    pub(super) fn new(server: Arc<Server>, stream: Incoming, length: Option<u64>, path: &str) -> Self {
        Self {
            server,
            path: path.into(),
            stream,
            length,
            received: 0,
            pace: Pace::default(),
            state: State::Open,
        }
    }

    /// The next chunk; `None` at a clean end. After an error there is nothing but the same error.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        match &self.state {
            State::Open => {}
            State::Whole => return None,
            State::Broken(error) => return Some(Err(error.clone())),
        }
        match self.next().await {
            Ok(Some(bytes)) => Some(Ok(bytes)),
            Ok(None) => {
                self.state = State::Whole;
                None
            }
            Err(error) => {
                self.server
                    .vitals
                    .note_failure_at(Admission::Go, &error, &self.path);
                self.state = State::Broken(error.clone());
                Some(Err(error))
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let read = self.server.timeouts.read;
        loop {
            let began = self.server.clock.now();
            let frame = tokio::time::timeout(read, self.stream.frame()).await;
            let waited = self.server.clock.now().since(began);
            let bytes = match frame {
                Err(_) => return Err(stalled(read)),
                Ok(None) => return self.end(),
                Ok(Some(Err(error))) => return Err(Error::from_causes(&error, Kind::HttpResponseIncomplete)),
                // What is no data is a trailer section: it does not go on (RFC 9110 6.5.1 lets a proxy drop it).
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            // A body without a length may be one that tells of events as they happen.
            let window = read.saturating_mul(WINDOW_DEADLINES);
            if self.pace.is_stalled(waited, bytes.len() as u64, window) && self.length.is_some() {
                return Err(Error::new(Kind::ConnectionReadTimeout, "the body drips"));
            }
            self.received += bytes.len() as u64;
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    fn end(&self) -> Result<Option<Bytes>, Error> {
        match self.length {
            Some(length) if length != self.received => Err(Error::new(
                Kind::HttpResponseIncomplete,
                format!("the body ended after {} of {length} bytes", self.received),
            )),
            _ => Ok(None),
        }
    }
}

fn stalled(read: Duration) -> Error {
    Error::new(Kind::ConnectionReadTimeout, format!("no bytes within {read:?}"))
}
