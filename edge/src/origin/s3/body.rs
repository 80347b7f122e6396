//! A body as it comes from S3: whole, checked, at a decent pace, or an error.
//!
//! The last bytes are held back until the check has passed, so that a body which is wrong never ends cleanly. A body
//! that breaks is taken up where it broke, from the same object only.

use std::sync::{Arc, PoisonError};

use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::{HeaderValue, header};
use http_body_util::BodyExt as _;

use super::send::{Raw, Request};
use super::verdict::{self, ContentRange, Verdict};
use super::{Bucket, Check};
use crate::origin::health::Admission;
use crate::origin::pace::{Pace, WINDOW_DEADLINES};
use crate::origin::{AskedRange, Error, Kind, retry};

/// A body from S3.
#[derive(Debug)]
pub struct Body {
    bucket: Arc<Bucket>,
    /// What was asked: the same is asked for the rest.
    request: Request,
    stream: SdkBody,
    /// The validator by which the rest is known to be of the same object; a strong one only.
    etag: Option<HeaderValue>,
    /// Where the body begins and ends in the object, when it is a part of it.
    place: Option<ContentRange>,
    length: Option<u64>,
    received: u64,
    /// The last chunk of a body of unknown length waits here for the end.
    held: Option<Bytes>,
    /// Whether the caller has seen any of it.
    delivered: bool,
    check: Option<Check>,
    pace: Pace,
    resumes_left: u32,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Open,
    Whole,
    Broken(Error),
}

/// The check of a whole object, of which the rest comes by other ways than this body.
#[derive(Debug)]
pub struct Proof {
    bucket: Arc<Bucket>,
    key: String,
    check: Check,
    seen: u64,
}

impl Proof {
    /// How many bytes it has seen, from the beginning on.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The next bytes of the object.
    pub fn update(&mut self, bytes: &[u8]) {
        self.check.update(bytes);
        self.seen += bytes.len() as u64;
    }

    /// The object has ended.
    ///
    /// # Errors
    ///
    /// When these are not the bytes that were stored. It is counted against the bucket.
    pub fn finish(self) -> Result<(), Error> {
        let Self {
            bucket, key, check, ..
        } = self;
        check
            .finish()
            .inspect_err(|error| bucket.note_failure(Admission::Go, error, &key))
    }
}

impl Body {
    /// What is left to be checked of a body that is not read on; `None` when that was done, or cannot be.
    pub fn into_proof(self) -> Option<Proof> {
        Some(Proof {
            check: self.check?,
            bucket: self.bucket,
            key: self.request.key,
            seen: self.received,
        })
    }

    pub(super) fn new(
        bucket: Arc<Bucket>,
        request: Request,
        raw: Raw,
        length: Option<u64>,
        place: Option<ContentRange>,
    ) -> Self {
        // A checksum is one of the whole object.
        let check = if place.is_none() {
            Check::of(&raw.headers, &bucket.etags)
        } else {
            None
        };
        let etag = raw
            .headers
            .get(header::ETAG)
            .filter(|etag| etag.as_bytes().starts_with(b"\""))
            .cloned();
        Self {
            resumes_left: bucket.timeouts.attempts,
            bucket,
            request,
            stream: raw.body,
            etag,
            place,
            length,
            received: 0,
            held: None,
            delivered: false,
            check,
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
        let next = self.next().await;
        match &next {
            Some(Ok(_)) => self.delivered = true,
            None => self.state = State::Whole,
            Some(Err(error)) => self.state = State::Broken(error.clone()),
        }
        next
    }

    async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            let step = match self.frame().await {
                Ok(Some(bytes)) => self.take(bytes),
                Ok(None) => self.end(),
                Err(fault) => Err(fault),
            };
            match step {
                Ok(Step::Deliver(bytes)) => return Some(Ok(bytes)),
                Ok(Step::More) => {}
                Ok(Step::End) => return None,
                Err(fault) => {
                    if let Err(error) = self.resume(fault).await {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// The next bytes of the connection, `None` at its end.
    async fn frame(&mut self) -> Result<Option<Bytes>, Error> {
        if self.length == Some(self.received) {
            return Ok(None);
        }
        let read = self.bucket.timeouts.read;
        let began = self.bucket.clock.now();
        let frame = tokio::time::timeout(read, self.stream.frame()).await;
        let waited = self.bucket.clock.now().since(began);
        let bytes = match frame {
            Err(_) => {
                return Err(Error::new(
                    Kind::ConnectionReadTimeout,
                    format!("no bytes within {read:?}"),
                ));
            }
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(Error::from_causes(&*error, Kind::HttpResponseIncomplete)),
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        };
        if self
            .pace
            .is_stalled(waited, bytes.len() as u64, read.saturating_mul(WINDOW_DEADLINES))
        {
            return Err(Error::new(Kind::ConnectionReadTimeout, "the body drips"));
        }
        Ok(Some(bytes))
    }

    fn take(&mut self, bytes: Bytes) -> Result<Step, Error> {
        if bytes.is_empty() {
            return Ok(Step::More);
        }
        self.received += bytes.len() as u64;
        if self.length.is_some_and(|length| self.received > length) {
            return Err(Error::new(
                Kind::HttpProtocolError,
                "more bytes than were announced",
            ));
        }
        if let Some(check) = &mut self.check {
            check.update(&bytes);
        }
        if self.length.is_none() {
            return Ok(self.held.replace(bytes).map_or(Step::More, Step::Deliver));
        }
        if self.length == Some(self.received) {
            self.finish_check()?;
        }
        Ok(Step::Deliver(bytes))
    }

    fn end(&mut self) -> Result<Step, Error> {
        if self.length.is_some_and(|length| self.received < length) {
            return Err(Error::new(
                Kind::HttpResponseIncomplete,
                format!("the body ended after {} bytes", self.received),
            ));
        }
        self.finish_check()?;
        Ok(self.held.take().map_or(Step::End, Step::Deliver))
    }

    fn finish_check(&mut self) -> Result<(), Error> {
        self.check.take().map_or(Ok(()), Check::finish)
    }

    /// Takes the body up again after `fault`, if that may be; otherwise gives back why not.
    async fn resume(&mut self, fault: Error) -> Result<(), Error> {
        let mut fault = fault;
        loop {
            self.bucket.note_failure(Admission::Go, &fault, &self.request.key);
            if !self.may_resume(&fault) {
                return Err(fault);
            }
            let made = self.bucket.timeouts.attempts.saturating_sub(self.resumes_left) + 1;
            self.resumes_left = self.resumes_left.saturating_sub(1);
            tokio::time::sleep(retry::back_off(made, fastrand::f64())).await;
            self.bucket.metrics.resumes.inc();
            match self.ask_for_the_rest().await {
                Ok(()) => return Ok(()),
                Err(error) => fault = error,
            }
        }
    }

    fn may_resume(&self, fault: &Error) -> bool {
        // Bytes that were wrong cannot be taken back once the caller has some of them.
        let in_time = fault.kind != Kind::ChecksumMismatch || !self.delivered;
        let sound = fault.kind.is_transient() && fault.kind != Kind::HttpProtocolError;
        let mut budget = self.bucket.budget.lock().unwrap_or_else(PoisonError::into_inner);
        self.resumes_left > 0
            && self.etag.is_some()
            && in_time
            && sound
            && budget.take(self.bucket.clock.now())
    }

    async fn ask_for_the_rest(&mut self) -> Result<(), Error> {
        // If nothing was given away yet, everything is asked for anew, and checked anew.
        let done = if self.delivered { self.received } else { 0 };
        let first = self.place.map_or(0, |place| place.first).saturating_add(done);
        let range = (done > 0 || self.place.is_some()).then(|| AskedRange::From {
            first,
            last: self.place.map(|place| place.last),
        });
        let request = Request {
            key: self.request.key.clone(),
            range,
            if_match: self.etag.clone(),
            ..Request::default()
        };
        let raw = self.bucket.send(&request).await?;
        let verdict = verdict::judge(&raw, &request)?;
        if raw.headers.get(header::ETAG) != self.etag.as_ref() {
            return Err(Error::new(Kind::ObjectChanged, "the rest has another ETag"));
        }
        let Verdict::Content { length, place } = verdict else {
            return Err(Error::new(
                Kind::ObjectChanged,
                format!("status {} for the rest", raw.status.as_u16()),
            ));
        };
        if place.is_some() != range.is_some()
            || length != self.length.map(|length| length.saturating_sub(done))
        {
            return Err(Error::new(
                Kind::HttpProtocolError,
                "the rest is not the part that was asked",
            ));
        }
        if done == 0 {
            (self.received, self.held) = (0, None);
            self.check = if place.is_none() {
                Check::of(&raw.headers, &self.bucket.etags)
            } else {
                None
            };
        }
        self.stream = raw.body;
        self.pace = Pace::default();
        Ok(())
    }
}

enum Step {
    Deliver(Bytes),
    More,
    End,
}
