//! Processes: started on a core, measured from outside, and ended with their children. Linux only.

mod child;
mod memory;
mod quiet;
mod usage;

pub(crate) use child::{Child, Spawn, allowed_cores, pin_self};
pub(crate) use memory::{Memory, memory};
pub(crate) use quiet::{Disturbance, Quiet};
pub(crate) use usage::{Spent, cpu_nanos};
