//! Portico's certificates: read from files, ordered from a CA, shared by a fleet, checked, chosen by name.
//!
//! A [`Bundle`] is one chain with its key, checked. [`Bundles`] holds those of all configured files and keeps the last
//! good one of each; a [`Keeper`] does the same for those that are ordered by ACME and shared through a [`store`]. A [`Resolver`]
//! answers handshakes from them without a lock, and [`Tickets`] resumes the sessions of other nodes. Nothing here listens, starts a
//! task or asks for the time: the caller says when it is and when to look again.

pub mod acme;
pub mod bundle;
pub mod bundles;
pub mod dev_ca;
pub mod inspect;
pub mod keeper;
pub mod material;
pub mod renewal;
pub mod resolver;
pub mod settings;
pub mod store;
pub mod tickets;

mod pem;
mod private_file;
#[cfg(test)]
mod testing;

pub use acme::Answers;
pub use bundle::{Bundle, Error, Warning, load};
pub use bundles::{Bundles, Outcome, Pair, Reload};
pub use dev_ca::DevCa;
pub use keeper::Keeper;
pub use resolver::{Refusal, Resolver};
pub use settings::Settings;
pub use tickets::{Now, Tickets};
