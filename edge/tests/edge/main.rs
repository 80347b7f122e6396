//! The node as its clients see it: real sockets, bytes by hand.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod client;
mod door;
mod door_h1;
mod door_h2;
mod stop;
