//! Origins that speak HTTP: what they are told, what of their answers goes on, and what becomes of their faults.

mod application;
mod deception;
mod faults;
mod fetching;
mod law;
mod on_disk;
mod over_h2;
mod poisoning;
mod relaying;
mod servers;
mod smuggling;
mod splitting;
