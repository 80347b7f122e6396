//! The S3 side of Portico: what a fleet shares lives in a bucket, and this crate is where buckets are spoken of.
//!
//! [`bucket`] is a small S3 of our own, kept in a folder: the demo and the tests run against it, and it can be
//! told to fail in every way in which a real one has been seen to fail. [`release`] says what a release is, how it is
//! signed, and where in a bucket it stands. [`command`] is the command line.
//!
//! The crate knows nobody: not the edge, not the certificates. Both use it.

pub mod bucket;
pub mod command;
pub mod lanes;
pub mod now;
pub mod progress;
pub mod promote;
pub mod push;
pub mod release;
pub mod remote;
