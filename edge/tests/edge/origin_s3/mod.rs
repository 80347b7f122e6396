//! The S3 origin against the embedded bucket, against raw sockets, and against any S3 that the environment names:
//! `EDGE_TEST_S3_ENDPOINT`, `EDGE_TEST_S3_KEY_ID`, `EDGE_TEST_S3_SECRET`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod connect;
mod credentials;
mod faults;
mod health;
mod lab;
mod raw;
mod store;
