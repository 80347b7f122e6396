//! Portico's edge node.

pub mod admin;
pub mod cache;
pub mod clock;
pub mod config;
pub mod demo;
pub mod drain;
pub mod exchange;
pub mod fields;
pub mod http;
pub mod lifecycle;
pub mod listener;
pub mod origin;
pub mod representation;
pub mod server;
pub mod site;
pub mod telemetry;
pub mod tls;
