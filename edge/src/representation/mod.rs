//! The selected representation (RFC 9110, sections 8 and 12 to 14): validators, preconditions, ranges and content codings.
//!
//! Pure answers to questions the exchange asks: which coding, modified or not, which bytes. It opens nothing, stores
//! nothing and knows no clock; `Vary`, freshness and storing are the cache's.

pub mod coding;
pub mod encoder;
pub mod precondition;
pub mod range;
pub mod validator;

pub use coding::{AcceptEncoding, Coding};
pub use encoder::{Decoder, Encoder, Quality};
pub use validator::Validators;
