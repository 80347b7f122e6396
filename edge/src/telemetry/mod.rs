//! What the operator sees of the node: metrics, access log, operator log. Nothing in here decides anything.

pub mod access_log;
pub mod log;
pub mod metrics;
pub mod process;
