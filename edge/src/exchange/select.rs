//! Which form of a response a client gets (RFC 9110 section 12.5.3): the smallest that it accepts, made if need be.
//!
//! It only chooses; `respond` sends, and `recode` makes.

use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, RANGE};
use http::{HeaderMap, StatusCode};

use super::asks::Asks;
use super::fetch::Arriving;
use super::recode;
use crate::cache::store::{Form, Head, StoredResponse};
use crate::representation::coding::{AcceptEncoding, Coding};
use crate::representation::encoder::Quality;

/// What is to be answered with.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A response that is all there.
    Stored(Arc<StoredResponse>),
    /// One whose body is on its way.
    Arriving(Arc<Arriving>),
}

impl Subject {
    /// Everything but the body.
    pub fn head(&self) -> &Arc<Head> {
        match self {
            Self::Stored(stored) => &stored.head,
            Self::Arriving(arriving) => &arriving.head,
        }
    }
}

/// Which form is to be sent, before anything is done for it.
pub(super) enum Plan<'a> {
    /// A form that is there.
    Ready(&'a Form),
    /// The origin's own, as it arrives.
    AsItComes,
    /// One that is being made, or has to be.
    Coded(Coding, &'static str),
    /// The client takes none.
    Refused,
}

/// Chooses the form (RFC 9110 12.5.3). The smallest accepted one wins; one that does not exist yet is made, unless a
/// range is asked for: then only what is there takes part.
pub(super) fn plan<'a>(request: &HeaderMap, asks: Asks, subject: &'a Subject) -> Plan<'a> {
    let head = subject.head();
    let is_part = head.status == StatusCode::PARTIAL_CONTENT;
    if is_part || (!head.codable && head.coding == Coding::Identity) {
        return match subject {
            Subject::Stored(stored) => stored.own_form().map_or(Plan::Refused, |form| Plan::Ready(form)),
            Subject::Arriving(_) => Plan::AsItComes,
        };
    }
    let accepted = match asks.for_coding() {
        true => AcceptEncoding::parse(request.get_all(ACCEPT_ENCODING)),
        false => AcceptEncoding::IDENTITY,
    };
    if head.coding != Coding::Identity {
        return plan_decoded(accepted, subject);
    }
    let Some(wanted) = accepted.order().next() else {
        return Plan::Refused;
    };
    let Subject::Stored(stored) = subject else {
        return match wanted {
            Coding::Identity => Plan::AsItComes,
            _ if asks.for_range() && request.contains_key(RANGE) && accepted.accepts(Coding::Identity) => {
                Plan::AsItComes
            }
            coding => Plan::Coded(coding, coding.suffix(Quality::Fast)),
        };
    };
    let settled = stored.form(wanted).is_some() || (asks.for_range() && request.contains_key(RANGE));
    let sizes = stored.forms.iter().map(|form| (form.coding, form.body.len()));
    let smallest = accepted
        .smallest(sizes)
        .filter(|_| settled)
        .and_then(|coding| stored.form(coding));
    match smallest {
        Some(form) => Plan::Ready(form),
        None => Plan::Coded(wanted, wanted.suffix(Quality::Fast)),
    }
}

/// The plan for a body that the origin keeps coded: as it is for those who take that, decoded for the rest.
fn plan_decoded(accepted: AcceptEncoding, subject: &Subject) -> Plan<'_> {
    let own = subject.head().coding;
    match subject {
        _ if !accepted.accepts(own) && !accepted.accepts(Coding::Identity) => Plan::Refused,
        Subject::Stored(stored) if accepted.accepts(own) => {
            stored.own_form().map_or(Plan::Refused, |form| Plan::Ready(form))
        }
        Subject::Arriving(_) if accepted.accepts(own) => Plan::AsItComes,
        Subject::Stored(stored) => match stored.form(Coding::Identity) {
            Some(form) => Plan::Ready(form),
            None => Plan::Coded(Coding::Identity, recode::DECODED),
        },
        Subject::Arriving(_) => Plan::Coded(Coding::Identity, recode::DECODED),
    }
}

/// Whether the client takes the form that the origin keeps.
pub(super) fn takes_own(request: &HeaderMap, head: &Head) -> bool {
    AcceptEncoding::parse(request.get_all(ACCEPT_ENCODING)).accepts(head.coding)
}
