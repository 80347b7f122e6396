//! Portico's edge node.

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
