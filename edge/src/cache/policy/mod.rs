//! The law of HTTP caching as pure functions: fields, times and configuration in; one closed answer out.
//!
//! One file per matter of RFC 9111. Nothing here knows a store, a socket or the time of day; whoever asks brings the
//! time along.

pub mod invalidation;
pub mod partial;
pub mod staleness;
pub mod storability;
pub mod validation;

pub mod freshness;
pub mod vary;

pub mod directives;
