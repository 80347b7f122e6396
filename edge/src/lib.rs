//! Portico's edge node.

pub mod config;
pub mod telemetry;

pub mod drain;

pub mod clock;
