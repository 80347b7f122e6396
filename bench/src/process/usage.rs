//! The processor time of a process and its descendants, from /proc.
//!
//! The scheduler counts nanoseconds for each thread (`schedstat`); /proc/PID/stat counts hundredths of a second for the
//! process, threads that have ended included. The larger of the two differences is the truth: threads that end between two
//! looks are missing from the first, and whatever is below a hundredth of a second from the second.

use std::collections::HashMap;
use std::fs;

/// Nanoseconds in one unit of /proc/PID/stat. Linux shows 100 units a second to programs, whatever it counts inside.
const UNIT_NANOS: u64 = 10_000_000;

/// What some processes have used at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spent {
    threads: HashMap<(u32, u32), u64>,
    processes: HashMap<u32, u64>,
}

impl Spent {
    /// Looks at the processes `pids` and all that descend from them.
    pub(crate) fn look(pids: &[u32]) -> Self {
        let mut spent = Self::default();
        for pid in pids.iter().flat_map(|&pid| tree(pid)) {
            for thread in threads(pid) {
                if let Some(nanos) = scheduled(pid, thread) {
                    spent.threads.insert((pid, thread), nanos);
                }
            }
            if let Some(units) = stat(pid) {
                spent.processes.insert(pid, units * UNIT_NANOS);
            }
        }
        spent
    }

    /// Nanoseconds used since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> u64 {
        more(&self.threads, &earlier.threads).max(more(&self.processes, &earlier.processes))
    }
}

/// What a process has used by itself since it began.
pub(crate) fn cpu_nanos(pid: u32) -> u64 {
    Spent::look(&[pid]).since(&Spent::default())
}

/// A process and all that descend from it, itself first.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        next += 1;
        for thread in threads(pid) {
            let children = format!("/proc/{pid}/task/{thread}/children");
            let children = fs::read_to_string(children).unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|child| child.parse::<u32>().ok()),
            );
        }
    }
    found
}

/// What was used by those that are there now, less what they had used then. Whoever is new began at nothing.
fn more<K: Eq + std::hash::Hash>(now: &HashMap<K, u64>, then: &HashMap<K, u64>) -> u64 {
    now.iter()
        .map(|(who, nanos)| nanos.saturating_sub(then.get(who).copied().unwrap_or_default()))
        .sum()
}

fn threads(pid: u32) -> Vec<u32> {
    let Ok(folder) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    folder
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The first number of `schedstat`: nanoseconds on a processor.
fn scheduled(pid: u32, thread: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).ok()?;
    text.split(' ').next()?.parse().ok()
}

fn stat(pid: u32) -> Option<u64> {
    units(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `utime`, `stime` and what ended children used, the 14th to 17th field. The second one is a name, which may hold spaces
/// and parentheses.
fn units(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Option<Vec<u64>> = rest
        .split(' ')
        .skip(11)
        .take(4)
        .map(|field| field.trim().parse().ok())
        .collect();
    fields
        .filter(|fields| fields.len() == 4)
        .map(|fields| fields.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_four_times_are_added() {
        let check = |stat: &str, expected: Option<u64>| assert_eq!(units(stat), expected, "{stat}");
        check(
            "7 (edge) S 1 7 7 0 -1 4194304 100 0 0 0 250 40 9 9 20 0 5 0 1",
            Some(308),
        );
        check(
            "7 (a) b) (c) S 1 7 7 0 -1 4194304 100 0 0 0 2 3 0 0 20 0",
            Some(5),
        );
        check("7 (edge) S 1 7", None);
        check("", None);
    }

    #[test]
    fn what_is_new_began_at_nothing_and_what_is_gone_is_not_missed() {
        let then = HashMap::from([(1, 10), (2, 50)]);
        let now = HashMap::from([(1, 14), (3, 5)]);
        assert_eq!(more(&now, &then), 9);
    }

    #[test]
    fn our_own_time_grows_and_a_stranger_has_none() {
        let own = std::process::id();
        let before = Spent::look(&[own]);
        let mut sum = 0_u64;
        while Spent::look(&[own]).since(&before) == 0 {
            sum = sum.wrapping_add(1);
        }
        assert_eq!(Spent::look(&[u32::MAX]).since(&Spent::default()), 0);
        assert!(tree(own).contains(&own));
    }
}
