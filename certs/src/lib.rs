//! Portico's certificates: read from files, checked, chosen by name, and made for development.
//!
//! A [`Bundle`] is one chain with its key, checked. [`Bundles`] holds those of all configured files and keeps the last
//! good one of each. A [`Resolver`] answers handshakes from them without a lock. Nothing here listens, watches files or
//! asks for the time: the caller says when it is and when to look again.

pub mod bundle;
pub mod bundles;
pub mod dev_ca;
pub mod resolver;

mod pem;
mod private_file;
#[cfg(test)]
mod testing;

pub use bundle::{Bundle, Error, Warning, load};
pub use bundles::{Bundles, Outcome, Pair, Reload};
pub use dev_ca::DevCa;
pub use resolver::{Refusal, Resolver};
