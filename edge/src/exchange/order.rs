//! What is to be fetched for a request, without the client that wants it.

use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::fetch::Arriving;
use super::message::Request;
use super::{Routed, answer, select};
use crate::cache::key::Key;
use crate::cache::policy::partial;
use crate::cache::policy::storability::NotStored;
use crate::cache::policy::validation;
use crate::cache::store::StoredResponse;
use crate::fields::lists;
use crate::origin::{Ask, AskedRange, Condition, Origin};
use crate::representation::range::{self, Selection};
use crate::site::Site;

/// How a cache tells an application that it heeds Surrogate-Control, and its name.
pub(super) const SURROGATE_CAPABILITY: HeaderName = HeaderName::from_static("surrogate-capability");

/// Everything that a fetch needs.
#[derive(Clone, Debug)]
pub struct Order {
    /// The site.
    pub site: Arc<Site>,
    /// The key.
    pub key: Key,
    /// Whom to ask.
    pub origin: Arc<Origin>,
    /// The request's fields, for Vary and the rules on Authorization.
    pub headers: HeaderMap,
    /// What would be used, to be validated.
    pub stored: Option<Arc<StoredResponse>>,
    /// What is stored for other requests, where nothing is for this one.
    pub others: Vec<Arc<StoredResponse>>,
    /// A part that `range` would make whole.
    pub part: Option<Arc<StoredResponse>>,
    /// Only the header section is wanted.
    pub head: bool,
    /// Only this range.
    pub range: Option<AskedRange>,
}

impl Order {
    /// What to fetch for a request; `None` when its site's origin is gone from the configuration.
    pub(super) fn new(
        request: &Request,
        routed: &Routed,
        stored: Option<Arc<StoredResponse>>,
        others: Vec<Arc<StoredResponse>>,
    ) -> Option<Self> {
        Some(Self {
            origin: routed.routes.origins.find(&routed.site.settings().origin)?,
            site: Arc::clone(&routed.site),
            key: routed.key.clone(),
            headers: told(request, routed),
            stored,
            others,
            part: None,
            head: request.method == Method::HEAD && routed.site.settings().relays,
            range: None,
        })
    }

    /// Asks for what is missing of `part` only, where that is one range, and where what comes could be combined with
    /// it.
    pub(super) fn complete(mut self, part: Option<Arc<StoredResponse>>) -> Self {
        let Some(part) = part.filter(|_| self.range.is_none() && !self.head) else {
            return self;
        };
        let fields = &part.head.origin_fields;
        let held = part.head.part.filter(|_| partial::combinable(fields, fields));
        if let Some((held, rest)) = held.and_then(|held| Some((held, held.rest()?))) {
            self.range = Some(AskedRange::From {
                first: rest.start,
                last: (rest.end != held.total).then(|| rest.end.saturating_sub(1)),
            });
            self.part = Some(part);
            self.others = Vec::new();
        }
        self
    }

    /// The stored responses that the origin is asked about: the one that would be used; or else those for other
    /// requests that have an entity tag to be named by, of one source.
    pub fn asked_back(&self) -> impl Iterator<Item = &Arc<StoredResponse>> {
        let source = self.others.first().map(|first| &first.head.source);
        let named = move |stored: &&Arc<StoredResponse>| {
            let head = &stored.head;
            head.etag.is_some() && head.status == StatusCode::OK && Some(&head.source) == source
        };
        self.stored.iter().chain(self.others.iter().filter(named))
    }

    /// What to ask the origin.
    pub(super) fn ask(&self) -> Ask {
        let whole = self.range.is_none() && !self.head;
        let condition = self.asked_back().next().filter(|_| whole).and_then(|first| {
            let fields = self.asked_back().map(|stored| &stored.head.origin_fields);
            let conditions = validation::conditions(fields);
            (!conditions.is_empty()).then(|| Condition {
                etag: conditions.etag,
                last_modified: conditions.last_modified,
                source: Arc::clone(&first.head.source),
            })
        });
        Ask {
            path: self.key.path().to_owned(),
            query: self.key.query().map(str::to_owned),
            site: self.site.name().to_owned(),
            fields: self.headers.clone(),
            head: self.head,
            condition,
            range: self.range,
            besides: Vec::new(),
        }
    }
}

/// The fields of a request by which an answer is chosen. An application is asked for the form without a coding, since
/// codings are negotiated here; where a rule leaves them to the application, for one that everybody can be given, as it
/// is taken off again for those who refuse it.
fn told(request: &Request, routed: &Routed) -> HeaderMap {
    let (site, mut headers) = (&routed.site, request.headers.clone());
    if site.settings().relays {
        let coding = match site.rule(request.target.path()).coding {
            true => "identity",
            false => "gzip",
        };
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(coding));
        // By this name Surrogate-Control speaks to us alone (W3C note, section 2.1).
        headers.remove(&SURROGATE_CAPABILITY);
        let name = &routed.routes.name;
        let heeded = site
            .settings()
            .targeted
            .iter()
            .any(|field| field == "surrogate-control");
        if heeded
            && lists::is_token(name)
            && let Ok(capability) = HeaderValue::try_from(format!("{name}=\"Surrogate/1.0\""))
        {
            headers.insert(SURROGATE_CAPABILITY, capability);
        }
    }
    headers
}

/// The single range that `request` asks of a body too large to be kept: the origin is asked for that alone.
/// Its first byte comes with it.
pub(super) fn of_large(request: &Request, arriving: &Arriving) -> Option<(AskedRange, u64)> {
    let may_be_asked_alone = arriving.not_stored == Some(NotStored::TooLarge) || arriving.goes_to_disk();
    if !may_be_asked_alone || request.method != Method::GET {
        return None;
    }
    // A part of one coding is of no use to a client that has to be given another.
    if !select::takes_own(&request.headers, &arriving.head) {
        return None;
    }
    let asked = request.headers.get(RANGE)?;
    if !answer::if_range_holds(request, &arriving.head) {
        return None;
    }
    match range::select(asked, arriving.length?) {
        // It will be there before long.
        Selection::Single(part) if arriving.goes_to_disk() && !arriving.is_far(part.start) => None,
        Selection::Single(part) => {
            let range = AskedRange::From {
                first: part.start,
                last: Some(part.end - 1),
            };
            Some((range, part.start))
        }
        _ => None,
    }
}
