//! Bodies that are open to be read: a file once for all who read it, and not more files than the process can spare.
//!
//! What is over the limit is opened for each read, which costs some microseconds.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::io::{Handle, Io};
use super::shared::body_name;

/// Bodies that are held open at most.
const OPEN_MAX: usize = 256;

/// Too many open files, in this process or on this machine, or no memory for one more.
const OUT_OF: [i32; 3] = [24, 23, 12];

/// The bodies that are open.
#[derive(Debug, Default)]
pub(super) struct Handles(Mutex<HashMap<u32, Weak<Handle>>>);

impl Handles {
    /// A body's file to be read, and whether it may be held open.
    pub(super) fn open(&self, io: &Io, file: u32) -> io::Result<(Arc<Handle>, bool)> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = open.get(&file).and_then(Weak::upgrade) {
            return Ok((handle, true));
        }
        if open.len() >= OPEN_MAX {
            open.retain(|_, handle| handle.strong_count() > 0);
        }
        let is_room = open.len() < OPEN_MAX;
        drop(open);
        let handle = Arc::new(io.open(&body_name(file), false)?);
        if is_room {
            let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            open.insert(file, Arc::downgrade(&handle));
        }
        Ok((handle, is_room))
    }

    /// How many are open.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().filter(|handle| handle.strong_count() > 0).count()
    }
}

/// Whether an error says that the process has no room for another open file. That is no damage: what could not be read is
/// there, and is read when there is room again.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| OUT_OF.contains(&code))
}
