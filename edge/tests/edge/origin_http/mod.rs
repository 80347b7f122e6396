//! Origins that speak HTTP: what they are told, what of their answers goes on, and what becomes of their faults.

mod application;
mod faults;
mod fetching;
mod law;
