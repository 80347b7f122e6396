//! Scenarios: the node and its parts over real sockets, against clients and buckets that misbehave on demand.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod cache_commands;
mod caching;
mod certificates;
mod client;
mod coding;
mod collapse;
mod delivery;
mod disk;
mod door;
mod door_h1;
mod door_h2;
mod early;
mod keys;
mod large;
mod operator;
mod origin_http;
mod origin_s3;
mod purging;
mod releases;
mod scripted;
mod stale;
mod stop;
mod support;
