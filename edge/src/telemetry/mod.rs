//! What the operator sees of the node: metrics and access log. Nothing in here decides anything.

pub mod metrics;
