//! Answers that wait before they begin: for a form that is being made, or for room to read a body from the disk.

use std::sync::Arc;

use super::answer::Answer;
use super::message::{Body, Request, Response};
use super::respond::{Begun, Said, as_it_comes, own_on_disk};
use super::select::{Subject, takes_own};
use super::{Exchange, Routed, error, intake, recode};
use crate::representation::coding::Coding;

/// A request that waits before it is answered.
pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) subject: Subject,
    pub(super) said: Said,
    pub(super) wait: Wait,
}

/// What is waited for.
pub(super) enum Wait {
    /// A form, which has to be made.
    Form(Coding, &'static str),
    /// Room to read a body of this length from the disk.
    Room(Option<u64>),
}

impl Exchange {
    /// Waits, and answers.
    pub(super) async fn go_on(self: &Arc<Self>, routed: &Routed, waiting: Waiting) -> Response {
        let Waiting {
            request,
            subject,
            said,
            wait,
        } = waiting;
        match wait {
            Wait::Form(coding, suffix) => self.coded(routed, (request, subject, said), coding, suffix).await,
            Wait::Room(length) => {
                let room = self.room_to_read_soon(length).await;
                let place = routed.place(&request, self.clock.now());
                if room.is_none() {
                    return self.fail(request, Some(place.site), error::Failure::OverBudget);
                }
                match self.answer_within(request, place, subject, said, room) {
                    Begun::Done(response) => response,
                    // What it is answered with is what it was to be answered with before.
                    Begun::Waits(waiting) => {
                        self.fail(waiting.request, Some(&routed.site), error::Failure::OverBudget)
                    }
                }
            }
        }
    }

    /// The answer with a form that is being made: small ones are waited for, large ones are followed.
    async fn coded(
        self: &Arc<Self>,
        routed: &Routed,
        (request, subject, said): (Request, Subject, Said),
        coding: Coding,
        suffix: &'static str,
    ) -> Response {
        let following = self.follow_form(&routed.key, &subject, coding).await;
        // Too many forms are being made, or the coder failed: the origin's own will do.
        let takes_own = following.is_none() && takes_own(&request.headers, subject.head());
        let room = match own_on_disk(&subject).filter(|_| takes_own) {
            Some(length) => self.room_to_read_soon(length).await,
            None => None,
        };
        let place = routed.place(&request, self.clock.now());
        let head = subject.head();
        let answer = match following {
            Some(recode::Following::Made(form)) => self.answer_with(&request, place, head, &form, None),
            Some(recode::Following::Reader(reader)) => Ok(Answer {
                body: Body::Inflight(reader),
                coding,
                ..Answer::bare(head.status, intake::form_fields(head, coding, suffix))
            }),
            None if !takes_own => Err(error::Failure::NotCoded),
            None => match &subject {
                Subject::Stored(stored) => match stored.own_form() {
                    Some(own) => self.answer_with(&request, place, head, own, room),
                    None => Err(error::no_origin()),
                },
                Subject::Arriving(_) => as_it_comes(&request, place, &subject, room),
            },
        };
        match answer {
            Ok(answer) => self.complete(answer, request, place, head, said),
            Err(failure) => self.fail(request, Some(place.site), failure),
        }
    }
}
