//! Portico's edge node.

pub mod tls;

pub mod site;

pub mod config;
pub mod telemetry;

pub mod drain;

pub mod clock;
