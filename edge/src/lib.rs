//! Portico's edge node.

pub mod cache;

pub mod representation;

pub mod fields;

pub mod config;
pub mod telemetry;

pub mod drain;

pub mod clock;
