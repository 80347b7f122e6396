//! The cache: what a response is stored under, whether it may be used, and what the outside is told of it.

pub mod epoch;
pub mod key;
pub mod status;
pub mod tag;

pub mod policy;
