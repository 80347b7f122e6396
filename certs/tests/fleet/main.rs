//! A fleet against a CA and a bucket: several nodes, one certificate. The CA misbehaves on demand, the bucket is the embedded one,
//! and time is moved by hand.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and starts what it needs"
)]

mod accounts;
mod bundles;
mod ca;
mod faults;
mod lab;
mod race;
mod renewing;
mod store;
