//! What a server is told of a request, and what of its answer goes on.
//!
//! A request's fields go on but for three kinds: those of this hop, those that the cache answers by itself (conditions
//! and ranges), and those by which a client could have an answer made that other clients get as well.

use http::header::{
    CONTENT_LENGTH, EXPECT, HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    RANGE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::config::{self, OriginHost};
use crate::fields::hop;
use crate::origin::{Ask, AskedRange, Relay};

/// Conditions and ranges of the client: the cache evaluates them, and asks with its own.
const CONDITIONS: [HeaderName; 6] = [
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    RANGE,
];

/// Fields that many applications take for the target, the method or the client. They are no part of the key, so what a
/// client claims in them never goes on with a request whose answer may be stored.
const CLAIMS: [HeaderName; 19] = [
    HeaderName::from_static("client-ip"),
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("front-end-https"),
    HeaderName::from_static("proxy"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("x-client-ip"),
    HeaderName::from_static("x-cluster-client-ip"),
    HeaderName::from_static("x-forwarded"),
    HeaderName::from_static("x-host"),
    HeaderName::from_static("x-http-destinationurl"),
    HeaderName::from_static("x-http-host-override"),
    HeaderName::from_static("x-middleware-subrequest"),
    HeaderName::from_static("x-proxy-url"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-remote-addr"),
    HeaderName::from_static("x-remote-ip"),
    HeaderName::from_static("x-scheme"),
    HeaderName::from_static("x-server-name"),
    HeaderName::from_static("x-url-scheme"),
];

/// Fields that some applications take for the method. To a POST they mean what they say, and nothing of it is stored.
const METHODS: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
];

/// The same, by how their names begin.
const CLAIM_PREFIXES: [&str; 3] = ["x-forwarded-", "x-original-", "x-rewrite-"];

/// What is the same in every request to one server.
#[derive(Debug)]
pub(super) struct Fields {
    /// `None` says the site's own name.
    host: Option<HeaderValue>,
    via: HeaderValue,
    own: Vec<(HeaderName, HeaderValue)>,
}

impl Fields {
    pub(super) fn new(config: &config::HttpOrigin, server: &config::HttpServer, name: &str) -> Self {
        let host = match &config.host {
            OriginHost::Fixed(host) => Some(host.clone()),
            OriginHost::Site => None,
            OriginHost::Url => Some(server.authority()),
        };
        let via = HeaderValue::try_from(format!("1.1 {name}"));
        Self {
            // What was read as a host is fit for a field.
            host: host.and_then(|host| HeaderValue::try_from(host).ok()),
            via: via.unwrap_or_else(|_| HeaderValue::from_static("1.1 portico")),
            own: config.fields.clone(),
        }
    }

    /// The fields of a request whose answer may be stored.
    pub(super) fn of_ask(&self, ask: &Ask) -> HeaderMap {
        let mut fields = ask.fields.clone();
        for name in CONDITIONS.iter().chain(&METHODS) {
            fields.remove(name);
        }
        self.finish(&mut fields, &ask.site);
        if let Some(condition) = &ask.condition {
            let both = [
                (IF_NONE_MATCH, &condition.etag),
                (IF_MODIFIED_SINCE, &condition.last_modified),
            ];
            for (name, value) in both {
                if let Some(value) = value {
                    fields.insert(name, value.clone());
                }
            }
        }
        if let Some(range) = ask.range.and_then(range_value) {
            fields.insert(RANGE, range);
        }
        fields
    }

    /// The fields of a request that is passed on as it is. Nothing of its answer is stored, so who asked, and how, is told.
    pub(super) fn of_relay(&self, relay: &Relay) -> HeaderMap {
        let mut fields = relay.fields.clone();
        if matches!(relay.method, Method::GET | Method::HEAD) {
            for name in CONDITIONS.iter().chain(&METHODS) {
                fields.remove(name);
            }
        }
        self.finish(&mut fields, &relay.site);
        let told = [
            ("x-forwarded-for", relay.client.to_string()),
            ("x-forwarded-host", relay.host.clone()),
            ("x-forwarded-proto", relay.scheme.to_owned()),
        ];
        for (name, value) in told {
            let name = HeaderName::from_static(name);
            if let Ok(value) = HeaderValue::try_from(value)
                && self.own.iter().all(|(own, _)| *own != name)
            {
                fields.insert(name, value);
            }
        }
        fields
    }

    /// Makes the fields of a request for another server those for this one.
    pub(super) fn readdress(&self, fields: &mut HeaderMap, site: &str) {
        let host = self.host.clone().or_else(|| HeaderValue::try_from(site).ok());
        if let Some(host) = host {
            fields.insert(HOST, host);
        }
    }

    /// Host, Via, and what the configuration adds; what belongs to this hop, or is a claim of the client's, goes.
    fn finish(&self, fields: &mut HeaderMap, site: &str) {
        hop::remove(fields);
        for name in CLAIMS.iter().chain(&[CONTENT_LENGTH, EXPECT]) {
            fields.remove(name);
        }
        let claims: Vec<HeaderName> = fields.keys().filter(|name| is_claim(name)).cloned().collect();
        for name in claims {
            fields.remove(name);
        }
        self.readdress(fields, site);
        // RFC 9110 7.6.3: after those that came before.
        fields.append(VIA, self.via.clone());
        for (name, value) in &self.own {
            fields.insert(name.clone(), value.clone());
        }
    }
}

/// The fields of an answer that go on: those of this hop and of framing are gone.
pub(super) fn incoming(mut fields: HeaderMap) -> HeaderMap {
    hop::remove(&mut fields);
    fields.remove(CONTENT_LENGTH);
    fields
}

fn is_claim(name: &HeaderName) -> bool {
    CLAIM_PREFIXES
        .iter()
        .any(|prefix| name.as_str().starts_with(prefix))
}

fn range_value(range: AskedRange) -> Option<HeaderValue> {
    let text = match range {
        AskedRange::From {
            first,
            last: Some(last),
        } => format!("bytes={first}-{last}"),
        AskedRange::From { first, last: None } => format!("bytes={first}-"),
        AskedRange::Suffix(length) => format!("bytes=-{length}"),
    };
    HeaderValue::try_from(text).ok()
}
