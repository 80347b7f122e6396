//! Portico's edge node.

pub mod lifecycle;

pub mod listener;

pub mod tls;

pub mod http;

pub mod exchange;

pub mod site;

pub mod cache;

pub mod representation;

pub mod fields;

pub mod config;
pub mod telemetry;

pub mod drain;

pub mod clock;
