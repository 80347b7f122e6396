//! The grammar of field lines that every other module shares: lists, structured fields, dates, and the fields that end at
//! each hop.
//!
//! It knows how a field is written, never what one means: directives, validators and ranges are read by their own modules.
//! Pure: no clock, no socket, no allocation beyond what is returned.

pub mod dates;
pub mod hop;
pub mod lists;
pub mod structured;

use http::HeaderValue;

/// A number, in as many bytes as it has digits.
pub fn number(n: u64) -> HeaderValue {
    HeaderValue::from_str(itoa::Buffer::new().format(n)).unwrap_or_else(|_| HeaderValue::from(n))
}
