//! One bucket.

mod body;

pub use body::Body;
