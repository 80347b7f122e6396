//! Verification: everything that is on the disk is read and proved, on a thread of its own, while the node serves.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::frame::{Kind, read_chunks};
use super::handles::is_shortage;
use super::index::Slot;
use super::log::read;
use super::metrics::Damage;
use super::shared::Shared;
use super::{Disk, bodies, meta};

/// How far a verification is, and what it has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Which verification it is; they are counted from 1.
    pub run: u64,
    /// Whether it is over.
    pub done: bool,
    /// Stored responses to be read.
    pub of: u64,
    /// Those that were as they had been written.
    pub entries: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Those that were not. They are gone now, and will be fetched again.
    pub damaged: u64,
}

/// The last verification.
#[derive(Debug, Default)]
pub(super) struct Verification(Mutex<Verified>);

impl Verification {
    fn lock(&self) -> MutexGuard<'_, Verified> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    /// How the last verification stands, or the one that is under way.
    pub fn verified(&self) -> Verified {
        *self.0.verification.lock()
    }

    /// Begins a verification, unless one is under way; its number.
    ///
    /// # Errors
    ///
    /// When there is no thread for it.
    pub fn begin_verification(&self) -> io::Result<u64> {
        let run = {
            let mut state = self.0.verification.lock();
            if state.run > 0 && !state.done {
                return Ok(state.run);
            }
            *state = Verified {
                run: state.run + 1,
                ..Verified::default()
            };
            state.run
        };
        let disk = self.clone();
        let begun = std::thread::Builder::new()
            .name("disk-verify".into())
            .spawn(move || {
                disk.verify();
            });
        if let Err(error) = begun {
            self.0.verification.lock().done = true;
            return Err(error);
        }
        Ok(run)
    }

    /// Reads everything and proves it. What is damaged is dropped. It blocks, for as long as that takes.
    pub fn verify(&self) -> Verified {
        let shared = &self.0.shared;
        let all = shared.index().all();
        {
            let mut state = self.0.verification.lock();
            *state = Verified {
                run: state.run.max(1),
                of: all.len() as u64,
                ..Verified::default()
            };
        }
        for (fingerprint, slot) in all {
            let proved = prove(shared, &slot);
            // It may have been replaced or evicted since.
            let is_there = || shared.index().live(fingerprint, slot.log, slot.offset).is_some();
            let is_short = matches!(&proved, Err(error) if is_shortage(error));
            let is_damaged = !matches!(proved, Ok(Some(_))) && !is_short && is_there();
            if is_damaged {
                shared.damaged(fingerprint, &slot, Damage::Record);
            }
            let mut state = self.0.verification.lock();
            state.damaged += u64::from(is_damaged);
            if let Ok(Some(bytes)) = proved {
                state.entries += 1;
                state.bytes += bytes;
            }
        }
        let mut state = self.0.verification.lock();
        state.done = true;
        *state
    }
}

/// The bytes of a response's body, if all of it is as it was written.
fn prove(shared: &Shared, slot: &Slot) -> io::Result<Option<u64>> {
    let Some(found) = read(shared, slot)? else {
        return Ok(None);
    };
    let is_good = match found.record.kind {
        Kind::Inline => read_chunks(found.body, shared.place(slot.log, slot.offset), 0).is_some(),
        Kind::External => bodies::verify(shared, slot.body_file, found.record.body_length)?,
        Kind::Gone => false,
    };
    Ok((is_good && meta::decode(&found.meta).is_some()).then_some(found.record.body_length))
}
