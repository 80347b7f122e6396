//! Portico's edge node.

pub mod server;
pub mod lifecycle;
pub mod demo;
pub mod admin;
pub mod listener;
pub mod http;
pub mod tls;
pub mod exchange;
pub mod site;
pub mod origin;
pub mod cache;
pub mod representation;
pub mod fields;
pub mod config;
pub mod telemetry;
pub mod drain;
pub mod clock;
