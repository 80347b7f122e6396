//! The processor time of a process and its children, from /proc. Linux only.

use std::path::PathBuf;
use std::{fs, io};

/// Microseconds in one unit of /proc/PID/stat. Linux shows 100 units a second to programs, whatever it counts inside.
const UNIT_MICROS: u64 = 10_000;

/// Why the time is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The process is gone, or is somebody else's.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    /// It does not look like it should.
    #[error("{0} holds something unexpected")]
    Unread(PathBuf),
}

/// What a process and its living descendants have used so far, for themselves and in the kernel.
pub(crate) fn cpu_micros(pid: u32) -> Result<u64, Error> {
    let mut total = own(pid)?;
    for child in children(pid) {
        // A child that ended in between is counted no more; servers' workers stay.
        total += cpu_micros(child).unwrap_or_default();
    }
    Ok(total)
}

fn own(pid: u32) -> Result<u64, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let text = fs::read_to_string(&path).map_err(|error| Error::Read(path.clone(), error))?;
    units(&text)
        .map(|units| units * UNIT_MICROS)
        .ok_or(Error::Unread(path))
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// `utime` and `stime` together, the 14th and 15th field. The second one is a name, which may hold spaces and parentheses.
fn units(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let (user, system) = (fields.next()?, fields.next()?);
    Some(user.parse::<u64>().ok()? + system.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_times_are_added() {
        let check = |stat: &str, expected: Option<u64>| assert_eq!(units(stat), expected, "{stat}");
        check(
            "7 (edge) S 1 7 7 0 -1 4194304 100 0 0 0 250 40 9 9 20 0 5 0 1",
            Some(290),
        );
        check(
            "7 (a) b) (c) S 1 7 7 0 -1 4194304 100 0 0 0 2 3 0 0 20 0",
            Some(5),
        );
        check("7 (edge) S 1 7", None);
        check("", None);
    }

    #[test]
    fn our_own_time_can_be_read_and_a_strangers_cannot() {
        assert!(cpu_micros(std::process::id()).is_ok());
        assert!(matches!(cpu_micros(u32::MAX), Err(Error::Read(..))));
    }
}
