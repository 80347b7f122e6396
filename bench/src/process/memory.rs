//! The memory of processes, from /proc: resident, and proportional, where a page that two share counts half for each.

use std::fs;

use super::usage::tree;

/// KiB of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) proportional: u64,
}

/// What the processes `pids` and their descendants hold.
pub(crate) fn memory(pids: &[u32]) -> Memory {
    let mut sum = Memory::default();
    for pid in pids.iter().flat_map(|&pid| tree(pid)) {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        sum.resident += kib(&text, "Rss:").unwrap_or_default();
        sum.proportional += kib(&text, "Pss:").unwrap_or_default();
    }
    sum
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_rollup_are_read() {
        let text =
            "5600-7ff [rollup]\nRss:            1440 kB\nPss:             411 kB\nPss_Dirty:       12 kB\n";
        assert_eq!(kib(text, "Rss:"), Some(1440));
        assert_eq!(kib(text, "Pss:"), Some(411));
        assert_eq!(kib(text, "Swap:"), None);
    }

    #[test]
    fn our_own_memory_is_more_than_nothing_and_no_more_proportional_than_resident() {
        let own = memory(&[std::process::id()]);
        assert!(
            own.proportional > 0 && own.proportional <= own.resident,
            "{own:?}"
        );
    }
}
