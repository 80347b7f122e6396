//! Metrics of the process itself, under the names that dashboards know: memory, descriptors, threads, CPU, start.
//!
//! They are read from `/proc` at scrape time; where there is none, they are NaN, which no dashboard takes for a zero.

use std::fs;

use super::metrics::Registry;
use crate::clock::Timestamp;

/// Ticks per second of the CPU times in `/proc/self/stat`: USER_HZ, which is 100 on every Linux that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Registers the metrics of the process and of the build; `started` is when the node started.
pub fn register(registry: &Registry, started: Timestamp) {
    registry.gauge_each(
        "edge_build_info",
        "Always 1; the labels say which build this is.",
        &["version", "arch", "os"],
        || {
            let labels = [
                env!("CARGO_PKG_VERSION"),
                std::env::consts::ARCH,
                std::env::consts::OS,
            ];
            vec![(labels.map(str::to_owned).to_vec(), 1.0)]
        },
    );
    let seconds = started.unix_micros() as f64 / 1e6;
    registry.gauge_fn(
        "process_start_time_seconds",
        "When the process started, in seconds since the Unix epoch.",
        move || seconds,
    );
    registry.gauge_fn(
        "process_resident_memory_bytes",
        "Memory of the process that is in RAM.",
        || status("VmRSS:").map_or(f64::NAN, |kibibytes| kibibytes * 1024.0),
    );
    registry.gauge_fn("process_threads", "Threads of the process.", || {
        status("Threads:").unwrap_or(f64::NAN)
    });
    registry.gauge_fn("process_open_fds", "Open file descriptors.", || {
        // The listing itself holds one descriptor.
        fs::read_dir("/proc/self/fd").map_or(f64::NAN, |fds| fds.count().saturating_sub(1) as f64)
    });
    registry.gauge_fn("process_max_fds", "File descriptors that may be open.", || {
        rlimit::Resource::NOFILE
            .get_soft()
            .map_or(f64::NAN, |limit| limit as f64)
    });
    registry.counter_fn(
        "process_cpu_seconds_total",
        "CPU time of the process, user and system.",
        || cpu_seconds().unwrap_or(f64::NAN),
    );
}

/// The number behind `key` in `/proc/self/status`; sizes there are in KiB, whatever the size of a page.
fn status(key: &str) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_whitespace().next()?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    ticks(&fs::read_to_string("/proc/self/stat").ok()?).map(|ticks| ticks as f64 / TICKS_PER_SECOND)
}

/// utime and stime, the 14th and 15th fields. The second field is the program's name, which may hold anything but ends
/// with the last parenthesis.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_program_name() {
        let check = |stat, expected| assert_eq!(ticks(stat), expected, "{stat}");
        check("1 (edge) S 2 3 4 5 6 7 8 9 10 11 70 5 0 0", Some(75));
        check("1 (a) b (c)) S 2 3 4 5 6 7 8 9 10 11 70 5 0 0", Some(75));
        check("1 (edge) S 2 3", None);
        check("", None);
    }

    #[test]
    fn the_process_is_measured() {
        let registry = Registry::default();
        register(&registry, Timestamp::from_unix_seconds(1_700_000_000));
        let text = registry.encode();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes ") > 1e6);
        assert!(value("process_open_fds ") >= 3.0);
        assert!(value("process_max_fds ") >= value("process_open_fds "));
        assert!(value("process_threads ") >= 1.0);
        assert!(value("process_cpu_seconds_total ") >= 0.0);
        assert_eq!(value("process_start_time_seconds "), 1.7e9);
        assert!(text.contains(concat!("edge_build_info{version=\"", env!("CARGO_PKG_VERSION"))));
        assert_eq!(registry.problems(), Vec::<String>::new());
    }
}
