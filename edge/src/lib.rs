//! Portico's edge node.

pub mod cache;

pub mod config;
pub mod telemetry;

pub mod drain;

pub mod clock;
