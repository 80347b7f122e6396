//! Files that are open to be read: each once for all who read it, and not more than the process can spare. A body is held open
//! by its readers, a log for the next who reads from it.
//!
//! What is over the limit is opened for each read, which costs some microseconds.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::io::{Handle, Io};
use super::shared::{body_name, log_name};

/// Bodies that are held open at most.
const OPEN_MAX: usize = 224;

/// Logs that are held open at most: the last that were opened.
const LOGS_MAX: usize = 32;

/// Too many open files, in this process or on this machine, or no memory for one more.
const OUT_OF: [i32; 3] = [24, 23, 12];

/// The files that are open.
#[derive(Debug, Default)]
pub(super) struct Handles {
    bodies: Mutex<HashMap<u32, Weak<Handle>>>,
    /// The last that was opened is the last.
    logs: Mutex<VecDeque<(u32, Arc<Handle>)>>,
}

impl Handles {
    fn bodies(&self) -> MutexGuard<'_, HashMap<u32, Weak<Handle>>> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn logs(&self) -> MutexGuard<'_, VecDeque<(u32, Arc<Handle>)>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A log's file to be read, if it is open.
    pub(super) fn held_log(&self, log: u32) -> Option<Arc<Handle>> {
        let logs = self.logs();
        let held = logs.iter().find(|(held, _)| *held == log);
        held.map(|(_, handle)| Arc::clone(handle))
    }

    /// A log's file to be read, which is held open from now on if it still `is_there` then.
    pub(super) fn open_log(
        &self,
        io: &Io,
        log: u32,
        is_there: impl FnOnce() -> bool,
    ) -> io::Result<Arc<Handle>> {
        if let Some(held) = self.held_log(log) {
            return Ok(held);
        }
        let handle = Arc::new(io.open(&log_name(log), false)?);
        let mut logs = self.logs();
        if let Some((_, held)) = logs.iter().find(|(held, _)| *held == log) {
            return Ok(Arc::clone(held));
        }
        let closed = if logs.len() >= LOGS_MAX {
            logs.pop_front()
        } else {
            None
        };
        logs.push_back((log, Arc::clone(&handle)));
        drop(logs);
        // Closing is not for who holds the lock.
        drop(closed);
        // A log that is removed leaves the index, is forgotten, and then unlinked: either it is forgotten after this, or seen
        // to be gone here.
        if !is_there() {
            self.forget_log(log);
        }
        Ok(handle)
    }

    /// Lets go of a log that is removed: its bytes are free once nobody has it open.
    pub(super) fn forget_log(&self, log: u32) {
        self.logs().retain(|(held, _)| *held != log);
    }

    /// A body's file to be read, and whether it may be held open.
    pub(super) fn open(&self, io: &Io, file: u32) -> io::Result<(Arc<Handle>, bool)> {
        let mut open = self.bodies();
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
            let mut open = self.bodies();
            open.insert(file, Arc::downgrade(&handle));
        }
        Ok((handle, is_room))
    }

    /// How many bodies are open.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let open = self.bodies();
        open.values().filter(|handle| handle.strong_count() > 0).count()
    }
}

/// Whether an error says that the process has no room for another open file. That is no damage: what could not be read is
/// there, and is read when there is room again.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| OUT_OF.contains(&code))
}
