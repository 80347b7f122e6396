//! Portico's edge node.

pub mod admin;

pub mod tls;

pub mod site;

pub mod cache;

pub mod representation;

pub mod fields;

pub mod config;
pub mod telemetry;

pub mod drain;

pub mod clock;
