//! The cache.

pub mod inflight;
pub mod store;
