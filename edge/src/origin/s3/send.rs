//! One request to S3 and the raw answer.
//!
//! The SDK signs, sends and reads error bodies. The head and the body of an answer are taken from it raw, before it
//! parses, drops or rewrites anything. What the answer means is judged in `verdict`.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_types::body::SdkBody;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::Limited;

use crate::origin::{AskedRange, Error, Kind};

/// Bytes of an error's XML that are read.
const ERROR_BODY_MAX: usize = 64 * 1024;

/// What is sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    /// The key, with the bucket's prefix.
    pub(super) key: String,
    pub(super) head: bool,
    pub(super) range: Option<AskedRange>,
    pub(super) if_none_match: Option<HeaderValue>,
    pub(super) if_modified_since: Option<HeaderValue>,
    pub(super) if_match: Option<HeaderValue>,
}

impl Request {
    pub(super) fn is_conditional(&self) -> bool {
        self.if_none_match.is_some() || self.if_modified_since.is_some()
    }

    /// The fields that go beside what the SDK sends; all of them are signed.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let mut fields = Vec::new();
        let range = self.range.map(|range| match range {
            AskedRange::From {
                first,
                last: Some(last),
            } => format!("bytes={first}-{last}"),
            AskedRange::From { first, last: None } => format!("bytes={first}-"),
            AskedRange::Suffix(length) => format!("bytes=-{length}"),
        });
        fields.extend(range.map(|range| ("range", range)));
        fields.extend(
            self.if_none_match
                .as_ref()
                .and_then(text)
                .map(|etag| ("if-none-match", etag)),
        );
        fields.extend(
            self.if_modified_since
                .as_ref()
                .and_then(text)
                .map(|date| ("if-modified-since", date)),
        );
        fields.extend(
            self.if_match
                .as_ref()
                .and_then(text)
                .map(|etag| ("if-match", etag)),
        );
        if !self.head && self.range.is_none() {
            fields.push(("x-amz-checksum-mode", "ENABLED".to_owned()));
        }
        fields
    }
}

/// An answer as it came.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The body of a 2xx; empty otherwise.
    pub(super) body: SdkBody,
    /// The `<Code>` of an error's XML.
    pub(super) code: Option<String>,
}

/// Sends `request`; an error is one of the way there and back. The caller bounds its time.
pub(super) async fn send(client: &Client, bucket: &str, request: &Request) -> Result<Raw, Error> {
    let capture = Capture::default();
    let fields = request.fields();
    let add = move |sent: &mut aws_sdk_s3::config::http::HttpRequest| {
        for (name, value) in &fields {
            // A value that is not fit for a field was never received as one.
            let _ = sent.headers_mut().try_insert(*name, value.clone());
        }
    };
    if request.head {
        let operation = client.head_object().bucket(bucket).key(&request.key).customize();
        finish(
            operation
                .interceptor(capture.clone())
                .mutate_request(add)
                .send()
                .await,
            &capture,
        )
    } else {
        let operation = client.get_object().bucket(bucket).key(&request.key).customize();
        finish(
            operation
                .interceptor(capture.clone())
                .mutate_request(add)
                .send()
                .await,
            &capture,
        )
    }
}

fn finish<T, E>(
    result: Result<T, SdkError<E, aws_sdk_s3::config::http::HttpResponse>>,
    capture: &Capture,
) -> Result<Raw, Error>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let captured = capture.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (captured, result) {
        // What the SDK makes of a head that came is of no interest but for an error's code.
        (Some(raw), Err(SdkError::ServiceError(error))) => Ok(Raw {
            code: error.err().code().map(str::to_owned),
            ..raw
        }),
        // The body of an error that cannot be read still leaves its status.
        (Some(raw), _) => Ok(raw),
        // Connecting is the only thing that the SDK has a deadline for here.
        (None, Err(SdkError::DispatchFailure(error))) if error.is_timeout() => Err(Error::new(
            Kind::ConnectionTimeout,
            "no connection within its deadline",
        )),
        (None, Err(error)) => Err(Error::from_causes(&error, Kind::HttpProtocolError)),
        (None, Ok(_)) => Err(Error::new(
            Kind::ProxyInternalError,
            "the SDK answered without an answer",
        )),
    }
}

/// Takes the raw answer out of the SDK's hands.
#[derive(Clone, Debug, Default)]
struct Capture(Arc<Mutex<Option<Raw>>>);

impl Intercept for Capture {
    fn name(&self) -> &'static str {
        "Capture"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        let mut headers = HeaderMap::with_capacity(response.headers().len());
        for (name, value) in response.headers().iter_bytes() {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
                headers.try_append(name, value)?;
            }
        }
        let status = StatusCode::from_u16(response.status().as_u16())?;
        let body = std::mem::replace(response.body_mut(), SdkBody::empty());
        let mut raw = Raw {
            status,
            headers,
            body: SdkBody::empty(),
            code: None,
        };
        if status.is_success() {
            raw.body = body;
        } else {
            *response.body_mut() = SdkBody::from_body_1_x(Limited::new(body, ERROR_BODY_MAX));
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(raw);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_sent_as_they_came() {
        let request = Request {
            range: Some(AskedRange::Suffix(5)),
            if_match: Some(HeaderValue::from_static("\"x\"")),
            if_none_match: Some(HeaderValue::from_static("\"a\"")),
            ..Request::default()
        };
        let expected = [
            ("range", "bytes=-5"),
            ("if-none-match", "\"a\""),
            ("if-match", "\"x\""),
        ];
        assert_eq!(
            request.fields(),
            expected.map(|(name, value)| (name, value.to_owned()))
        );
        assert_eq!(
            Request::default().fields(),
            [("x-amz-checksum-mode", "ENABLED".to_owned())]
        );
    }
}
