//! The one place where the disk tier touches files, so that a test can make any of it fail.
//!
//! Every operation asks [`Faults`] first: one relaxed load while none is planned. It knows nothing of what is in a file.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::io::ReadWriteFlags;

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Making or opening a file.
    Open,
    /// Reading.
    Read,
    /// Giving a file another name.
    Rename,
    /// Removing.
    Remove,
    /// Making sure that it is on the disk.
    Sync,
    /// Writing.
    Write,
}

/// How an operation goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// It fails with this error of the operating system.
    Error(i32),
    /// It takes until the faults are cleared, and goes well then.
    Hang,
    /// A write takes so many bytes, then fails with "no space left".
    Short(usize),
    /// A write takes so many bytes, and says that it took all.
    Torn(usize),
}

/// No space left on the device.
pub const ENOSPC: i32 = 28;
/// Input/output error.
pub const EIO: i32 = 5;
/// Too many open files.
pub const EMFILE: i32 = 24;
/// Read-only file system.
pub const EROFS: i32 = 30;

/// One planned fault.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which operation fails.
    pub op: Op,
    /// On files whose name ends so.
    pub name: &'static str,
    /// How.
    pub failing: Failing,
    /// How many such operations go well before.
    pub after: u32,
    /// How many fail then.
    pub times: u32,
}

/// The faults that are planned; none, outside of tests.
#[derive(Debug, Default)]
pub struct Faults {
    armed: AtomicBool,
    plan: Mutex<Vec<Fault>>,
    cleared: Condvar,
}

impl Faults {
    /// Plans a fault.
    pub fn add(&self, fault: Fault) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.push(fault);
        self.armed.store(true, Ordering::Relaxed);
    }

    /// Everything goes well again.
    pub fn clear(&self) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.clear();
        self.armed.store(false, Ordering::Relaxed);
        self.cleared.notify_all();
    }

    fn hit(&self, op: Op, path: &Path) -> Option<Failing> {
        if !self.armed.load(Ordering::Relaxed) {
            return None;
        }
        let name = path.file_name()?.to_str()?;
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = plan
            .iter_mut()
            .find(|fault| fault.op == op && fault.times > 0 && name.ends_with(fault.name))?;
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        fault.times -= 1;
        let failing = fault.failing;
        if failing != Failing::Hang {
            return Some(failing);
        }
        let hangs = |plan: &mut Vec<Fault>| !plan.is_empty();
        drop(self.cleared.wait_while(plan, hangs));
        None
    }

    fn check(&self, op: Op, path: &Path) -> io::Result<()> {
        match self.hit(op, path) {
            Some(Failing::Error(code)) => Err(io::Error::from_raw_os_error(code)),
            Some(Failing::Short(_) | Failing::Torn(_)) => Err(io::Error::from_raw_os_error(EIO)),
            Some(Failing::Hang) | None => Ok(()),
        }
    }
}

/// The folder of a cache, and what may go wrong in it. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Io {
    root: Arc<Path>,
    faults: Arc<Faults>,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Handle {
    file: File,
    path: PathBuf,
    faults: Arc<Faults>,
}

impl Io {
    pub(super) fn new(root: &Path, faults: Arc<Faults>) -> Self {
        Self {
            root: root.into(),
            faults,
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The names of all files and folders.
    pub(super) fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            // A name that is not UTF-8 is not ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Opens a file to read, or to read and write.
    pub(super) fn open(&self, name: &str, write: bool) -> io::Result<Handle> {
        self.with(name, OpenOptions::new().read(true).write(write))
    }

    /// Makes a file, empty, for its owner alone.
    pub(super) fn create(&self, name: &str) -> io::Result<Handle> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        self.with(name, options.mode(0o600))
    }

    /// Opens a file to read and write, and makes it if it is missing.
    pub(super) fn open_or_create(&self, name: &str) -> io::Result<Handle> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        self.with(name, options.mode(0o600))
    }

    fn with(&self, name: &str, options: &OpenOptions) -> io::Result<Handle> {
        let path = self.root.join(name);
        self.faults.check(Op::Open, &path)?;
        let file = options.open(&path)?;
        Ok(Handle {
            file,
            path,
            faults: Arc::clone(&self.faults),
        })
    }

    /// The whole of a small file.
    pub(super) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let handle = self.open(name, false)?;
        let length = usize::try_from(handle.len()?).unwrap_or(usize::MAX);
        handle.read_at(0, length)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let from = self.root.join(from);
        self.faults.check(Op::Rename, &from)?;
        std::fs::rename(from, self.root.join(to))
    }

    /// Removes a file. That it is gone already is no error. A folder in its place is removed as well.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.root.join(name);
        self.faults.check(Op::Remove, &path)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(_) if path.is_dir() => std::fs::remove_dir_all(path),
            other => other,
        }
    }

    /// Makes sure that names made and changed in the folder are on the disk.
    pub(super) fn sync_folder(&self) -> io::Result<()> {
        self.faults.check(Op::Sync, &self.root)?;
        File::open(&self.root)?.sync_all()
    }
}

impl Handle {
    pub(super) fn len(&self) -> io::Result<u64> {
        self.faults.check(Op::Read, &self.path)?;
        Ok(self.file.metadata()?.len())
    }

    /// Exactly `length` bytes from `offset`; an error when the file is shorter, before anything is allocated for it.
    pub(super) fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        if offset.saturating_add(length as u64) > self.len()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Exactly `length` bytes from `offset`, if the page cache has them all: waits for nothing to be read (preadv2(2),
    /// RWF_NOWAIT).
    pub(super) fn read_at_once(&self, offset: u64, length: usize) -> Option<Vec<u8>> {
        // A fault may be one that waits.
        if self.faults.armed.load(Ordering::Relaxed) {
            return None;
        }
        let mut bytes = vec![0; length];
        let mut into = [IoSliceMut::new(&mut bytes)];
        let read = rustix::io::preadv2(&self.file, &mut into, offset, ReadWriteFlags::NOWAIT);
        (read == Ok(length)).then_some(bytes)
    }

    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self.faults.hit(Op::Write, &self.path) {
            Some(Failing::Hang) | None => self.file.write_all_at(bytes, offset),
            Some(Failing::Error(code)) => Err(io::Error::from_raw_os_error(code)),
            Some(Failing::Short(taken)) => {
                let taken = bytes.get(..taken).unwrap_or(bytes);
                self.file.write_all_at(taken, offset)?;
                Err(io::Error::from_raw_os_error(ENOSPC))
            }
            Some(Failing::Torn(taken)) => self
                .file
                .write_all_at(bytes.get(..taken).unwrap_or(bytes), offset),
        }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.faults.check(Op::Sync, &self.path)?;
        self.file.sync_data()
    }

    /// Takes the file for this process alone, for as long as the handle lives. `false` when another has it.
    pub(super) fn lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}
