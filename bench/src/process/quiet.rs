//! How quiet the machine is: what others than the tool and its servers take of it, and what its host takes.

use std::fs;
use std::time::Duration;

use super::usage::Spent;
use crate::clock;

/// Of the time of all cores, the shares that went elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct Disturbance {
    /// To other processes, and to the kernel for others.
    pub(crate) others: f64,
    /// To other machines on the same host.
    pub(crate) stolen: f64,
}

/// More than this of either, and a run is done again, or shown as disturbed.
const SHARE_MAX: f64 = 0.05;

impl Disturbance {
    /// Whether a figure got under it is worth keeping.
    pub(crate) fn is_small(self) -> bool {
        self.others < SHARE_MAX && self.stolen < SHARE_MAX / 5.0
    }
}

/// The machine's time at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Quiet {
    machine: Machine,
    ours: Spent,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Machine {
    busy: u64,
    stolen: u64,
    all: u64,
}

impl Quiet {
    /// Looks at the machine.
    pub(crate) fn look() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self {
            machine: machine(&text).unwrap_or_default(),
            ours: Spent::look(&[std::process::id()]),
        }
    }

    /// What others have taken since.
    pub(crate) fn disturbance(&self) -> Disturbance {
        let now = Self::look();
        let units = |nanos: u64| nanos as f64 / 10_000_000.0;
        let all = now.machine.all.saturating_sub(self.machine.all) as f64;
        if all <= 0.0 {
            return Disturbance::default();
        }
        let busy = now.machine.busy.saturating_sub(self.machine.busy) as f64;
        Disturbance {
            others: ((busy - units(now.ours.since(&self.ours))) / all).max(0.0),
            stolen: now.machine.stolen.saturating_sub(self.machine.stolen) as f64 / all,
        }
    }

    /// Waits until the machine is quiet for a moment, or `patience` has passed; says whether it is quiet.
    pub(crate) fn wait(patience: Duration) -> bool {
        let began = clock::now();
        loop {
            let look = Self::look();
            std::thread::sleep(Duration::from_millis(200));
            if look.disturbance().is_small() {
                return true;
            }
            if began.elapsed() >= patience {
                return false;
            }
        }
    }
}

/// The first line of /proc/stat: user nice system idle iowait irq softirq steal.
fn machine(text: &str) -> Option<Machine> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let at = |index: usize| fields.get(index).copied();
    let idle = at(3)? + at(4)?;
    let stolen = at(7)?;
    let all = fields.iter().take(8).sum();
    Some(Machine {
        busy: all - idle - stolen,
        stolen,
        all,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_what_is_neither_idle_nor_stolen() {
        let text = "cpu  100 1 50 800 20 3 4 22 9 0\ncpu0 1 2 3\n";
        let expected = Machine {
            busy: 158,
            stolen: 22,
            all: 1000,
        };
        assert_eq!(machine(text), Some(expected));
        assert_eq!(machine("intr 5\n"), None);
    }

    #[test]
    fn one_share_too_large_disturbs() {
        let check = |others, stolen, small| {
            assert_eq!(
                Disturbance { others, stolen }.is_small(),
                small,
                "{others} {stolen}"
            );
        };
        check(0.0, 0.0, true);
        check(0.06, 0.0, false);
        check(0.0, 0.02, false);
    }
}
