//! The writing end: one thread that may block as long as it likes.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::format::Lines;
use super::queue::Batch;
use super::{Dropped, Output, Shared, lock};

/// Bytes that are gathered before they are written, while more entries wait.
const BUFFER_BYTES: usize = 64 * 1024;

/// How long entries gather after a burst. A writer that slept at once would have to be woken, with a system call of the
/// data plane, for each entry.
const GATHER: Duration = Duration::from_millis(20);

pub(super) struct Writer {
    shared: Arc<Shared>,
    output: Option<Output>,
    lines: Lines,
    buffer: Vec<u8>,
    /// The last write ended inside a line.
    torn: bool,
    /// The last write failed, and the operator was told.
    failing: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            output: None,
            lines: Lines::default(),
            buffer: Vec::with_capacity(BUFFER_BYTES + 4 * 1024),
            torn: false,
            failing: false,
        }
    }

    /// Writes until [`super::AccessLog::finish`].
    pub(super) fn run(mut self) {
        let mut batch = Batch::default();
        loop {
            let closing = self.shared.closing.load(Ordering::Acquire);
            self.go_over();
            let count = self.drain(&mut batch);
            self.write_out();
            if closing {
                break;
            }
            if count > 0 {
                std::thread::sleep(GATHER);
            } else if self.shared.queue.is_empty_and_awaited() {
                // Whoever changed something meanwhile has left a token that ends this at once.
                std::thread::park();
            }
        }
        *lock(&self.shared.ended) = true;
        self.shared.ended_told.notify_all();
    }

    /// Goes on where the operator said last.
    fn go_over(&mut self) {
        if let Some(output) = lock(&self.shared.next).take() {
            self.output = output;
            self.torn = false;
        }
    }

    /// Writes all that waits now; returns how many entries there were.
    fn drain(&mut self, batch: &mut Batch) -> usize {
        let shared = Arc::clone(&self.shared);
        shared.queue.drain(batch, |entry| {
            if let Some(output) = &self.output {
                self.lines
                    .line(&mut self.buffer, entry, output.format, output.truncate_address);
                if self.buffer.len() >= BUFFER_BYTES {
                    self.write_out();
                }
            }
        })
    }

    /// Writes the buffer out. What cannot be written is dropped and counted: keeping it would only move the loss to
    /// newer lines.
    fn write_out(&mut self) {
        let Some(output) = &mut self.output else {
            self.buffer.clear();
            return;
        };
        if self.buffer.is_empty() {
            return;
        }
        let mut result = Ok(());
        if self.torn {
            result = output.file.write_all(b"\n");
            self.torn = result.is_err();
        }
        let mut written = 0;
        while result.is_ok() && written < self.buffer.len() {
            match output.file.write(self.buffer.get(written..).unwrap_or_default()) {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => result = Err(error),
            }
        }
        let (done, left) = self.buffer.split_at_checked(written).unwrap_or_default();
        self.torn |= done.last().is_some_and(|byte| *byte != b'\n');
        self.shared.written.add(lines(done));
        self.shared.dropped.add(Dropped::WriteFailed, lines(left));
        self.buffer.clear();
        self.tell(result);
    }

    /// Tells the operator once when writing begins to fail, and once when it works again.
    fn tell(&mut self, result: io::Result<()>) {
        match result {
            Err(error) if !self.failing => {
                tracing::error!(%error, "the access log cannot be written; lines are dropped and counted");
                self.failing = true;
            }
            Ok(()) if self.failing => {
                tracing::info!("the access log is written again");
                self.failing = false;
            }
            Ok(()) | Err(_) => {}
        }
    }
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}
