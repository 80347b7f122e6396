//! The cache: what is kept, under which key, by which law, and who fetches what is not there.
//!
//! `policy` is the law (RFC 9111) and knows no store. `store` is the memory and knows no law. `collapse` and `inflight`
//! are how many requests become one fetch; `epoch` is how a purge reaches what it cannot see. Nothing here talks to an
//! origin: `exchange::fetch` joins the two.

pub mod collapse;
pub mod epoch;
pub mod inflight;
pub mod key;
pub mod policy;
pub mod status;
pub mod store;
pub mod tag;
