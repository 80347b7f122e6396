//! Counters that several threads move at once without sharing a cache line: each thread adds to its own row, and a
//! scrape sums the rows.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Rows of one table, at most: above this many threads, some share a row and stay right, only a little slower.
const ROWS_MAX: usize = 64;

/// Cells of one line.
const LINE_CELLS: usize = 16;

/// Two cache lines, as processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line([AtomicU64; LINE_CELLS]);

/// A fixed number of counters.
#[derive(Debug)]
pub(super) struct Cells {
    lines: Box<[Line]>,
    lines_per_row: usize,
    /// The number of rows, less one; rows are a power of two.
    row_mask: usize,
}

impl Cells {
    /// `width` counters at zero.
    pub(super) fn new(width: usize) -> Self {
        let rows = *THREADS_MAX;
        let lines_per_row = width.div_ceil(LINE_CELLS).max(1);
        Self {
            lines: (0..rows * lines_per_row).map(|_| Line::default()).collect(),
            lines_per_row,
            row_mask: rows - 1,
        }
    }

    /// Adds `n` to counter `at`; does nothing beyond the width.
    pub(super) fn add(&self, at: usize, n: u64) {
        let (line, cell) = (at / LINE_CELLS, at % LINE_CELLS);
        if line >= self.lines_per_row {
            return;
        }
        let row = thread_number() & self.row_mask;
        let cell = self
            .lines
            .get(row * self.lines_per_row + line)
            .and_then(|line| line.0.get(cell));
        if let Some(cell) = cell {
            cell.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// The sum of counter `at` over all threads.
    pub(super) fn sum(&self, at: usize) -> u64 {
        let (line, cell) = (at / LINE_CELLS, at % LINE_CELLS);
        if line >= self.lines_per_row {
            return 0;
        }
        let column = self.lines.iter().skip(line).step_by(self.lines_per_row);
        column
            .filter_map(|line| line.0.get(cell))
            .fold(0, |sum: u64, cell| sum.wrapping_add(cell.load(Ordering::Relaxed)))
    }
}

/// The number of this thread, in order of first use: what it keeps apart from others is found by it.
pub(crate) fn thread_number() -> usize {
    THREAD.with(|thread| *thread)
}

/// How many threads need something of their own: one for each core and one for the control plane, as a power of two.
pub(crate) static THREADS_MAX: LazyLock<usize> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores + 1).next_power_of_two().min(ROWS_MAX)
});

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's number, in order of first use.
    static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_when_many_threads_count() {
        let cells = Cells::new(40);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for n in 0..10_000 {
                        cells.add(n % 40, 2);
                    }
                });
            }
        });
        let sums: Vec<_> = (0..40).map(|at| cells.sum(at)).collect();
        assert_eq!(sums, vec![8 * 250 * 2; 40]);
    }

    #[test]
    fn a_cell_beyond_the_width_is_nobodys() {
        let cells = Cells::new(1);
        cells.add(LINE_CELLS, 1);
        assert_eq!(cells.sum(LINE_CELLS), 0);
        assert_eq!(cells.sum(0), 0);
    }

    #[test]
    fn two_threads_never_share_a_line() {
        assert_eq!(align_of::<Line>(), 128);
        assert_eq!(size_of::<Line>(), 128);
        assert!(THREADS_MAX.is_power_of_two());
    }
}
