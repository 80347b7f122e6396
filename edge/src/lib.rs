//! Portico's edge node.

pub mod origin;

pub mod config;
pub mod telemetry;

pub mod drain;

pub mod clock;
