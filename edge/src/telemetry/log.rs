//! The operator's log: events for people, on standard error.
//!
//! A thread of its own writes it, as somebody may have stopped reading it: lines that do not fit its bounded queue are
//! dropped and counted, and serving goes on. One event is one line, whatever its fields hold.

use std::io::{self, IsTerminal as _, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;

use super::metrics::{Counter, Registry};

/// Lines that wait to be written; above that, lines are dropped and counted.
const QUEUE_LINES: usize = 1_024;

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// EDGE_LOG or RUST_LOG does not say which events are wanted.
    #[error("{variable} is not a list of filters such as \"info,edge::origin=debug\"")]
    Filter {
        /// The environment variable.
        variable: &'static str,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The writing thread could not be started.
    #[error("the log's thread could not be started")]
    Thread(#[source] io::Error),
    /// There is a log already.
    #[error("the log is set up already")]
    Twice,
}

/// The running log.
#[derive(Clone, Debug)]
pub struct Log {
    queue: SyncSender<Message>,
    colour: bool,
    dropped: Counter,
}

/// Sets up the log of this process: EDGE_LOG, else RUST_LOG, else `info` says which events; colours on a terminal,
/// unless NO_COLOR says no.
pub fn start() -> Result<Log, Error> {
    // The embedded bucket's library calls each missing key an error.
    start_with("info,s3s=off")
}

/// As [`start`], with other events than `info` unless the environment says which.
pub fn start_with(events: &str) -> Result<Log, Error> {
    let filter = filter(|name| std::env::var(name).ok(), events)?;
    let colour =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = Log::to(io::stderr(), colour)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_writer(log.clone())
        .try_init()
        .map_err(|_| Error::Twice)?;
    Ok(log)
}

impl Log {
    fn to(sink: impl Write + Send + 'static, colour: bool) -> Result<Self, Error> {
        let (queue, waiting) = sync_channel(QUEUE_LINES);
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write(&waiting, sink))
            .map_err(Error::Thread)?;
        let dropped = Counter::default();
        Ok(Self {
            queue,
            colour,
            dropped,
        })
    }

    /// Registers the log's own metric.
    pub fn register(&self, registry: &Registry) {
        let dropped = self.dropped.clone();
        registry.counter_fn(
            "edge_log_dropped_total",
            "Lines of the operator's log that were not written.",
            move || dropped.value() as f64,
        );
    }

    /// Waits until everything that was logged so far is written, for `patience` at most; false when that was not
    /// enough. Blocks.
    pub fn flush(&self, patience: Duration) -> bool {
        let (done, told) = sync_channel(1);
        // A full queue is given the whole patience too: its writer is at work, or will never be.
        self.queue.try_send(Message::Flush(done)).is_ok() && told.recv_timeout(patience).is_ok()
    }
}

#[derive(Debug)]
enum Message {
    Line(String),
    Flush(SyncSender<()>),
}

fn write(waiting: &Receiver<Message>, mut sink: impl Write) {
    while let Ok(message) = waiting.recv() {
        match message {
            // Where the log itself cannot be written there is nobody left to tell.
            Message::Line(line) => drop(sink.write_all(line.as_bytes())),
            Message::Flush(done) => {
                let _ = sink.flush();
                let _ = done.try_send(());
            }
        }
    }
}

/// One event on its way; handed over when it is complete.
#[derive(Debug)]
pub struct Line<'a> {
    log: &'a Log,
    text: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        let text = Vec::with_capacity(256);
        Line { log: self, text }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let line = one_line(&self.text, self.log.colour);
        if self.log.queue.try_send(Message::Line(line)).is_err() {
            self.log.dropped.inc();
        }
    }
}

/// The event's text as one line: control characters are escaped, but for the colours of the subscriber itself.
fn one_line(text: &[u8], colour: bool) -> String {
    let text = String::from_utf8_lossy(text);
    let mut rest = text.strip_suffix('\n').unwrap_or(&text);
    let mut line = String::with_capacity(text.len() + 1);
    while let Some(c) = rest.chars().next() {
        let taken = if colour { colour_length(rest) } else { 0 };
        let (taken, after) = rest
            .split_at_checked(taken.max(c.len_utf8()))
            .unwrap_or((rest, ""));
        if c.is_control() && taken.len() == c.len_utf8() {
            line.extend(c.escape_default());
        } else {
            line.push_str(taken);
        }
        rest = after;
    }
    line.push('\n');
    line
}

/// The length of the colour sequence (`ESC [ 1;31 m`) that `text` begins with; zero when there is none.
fn colour_length(text: &str) -> usize {
    let sequence = text
        .strip_prefix("\u{1b}[")
        .map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'))
        .and_then(|rest| rest.strip_prefix('m'));
    sequence.map_or(0, |after| text.len() - after.len())
}

fn filter(variable: impl Fn(&str) -> Option<String>, events: &str) -> Result<EnvFilter, Error> {
    for name in ["EDGE_LOG", "RUST_LOG"] {
        if let Some(text) = variable(name).filter(|text| !text.is_empty()) {
            let parsed = EnvFilter::builder().parse(text);
            return parsed.map_err(|source| Error::Filter {
                variable: name,
                source,
            });
        }
    }
    Ok(EnvFilter::new(events))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_it_holds() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = Log::to(writer, false).unwrap();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let hostile = "a\r\n2026 ERROR forged \u{1b}[31m";
            tracing::info!(shown = %hostile, debug = ?hostile, "{hostile}");
        });
        assert!(log.flush(Duration::from_secs(20)));
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("a\\r\\n2026 ERROR forged"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn control_characters_are_escaped_and_colours_stay_where_there_are_any() {
        let check = |text: &str, colour, expected: &str| {
            assert_eq!(one_line(text.as_bytes(), colour), expected);
        };
        check("plain\n", false, "plain\n");
        check("a\nb\r\n", false, "a\\nb\\r\n");
        check("\u{1b}[31mred\u{1b}[0m\n", true, "\u{1b}[31mred\u{1b}[0m\n");
        check("\u{1b}[31mred", false, "\\u{1b}[31mred\n");
        check("\u{1b}[2J\u{1b}]0;x\u{7}", true, "\\u{1b}[2J\\u{1b}]0;x\\u{7}\n");
        check("\u{9b}31m é", true, "\\u{9b}31m é\n");
        check("", false, "\n");
    }

    #[test]
    fn a_pipe_that_nobody_reads_costs_lines_and_no_time() {
        let (reader, writer) = io::pipe().unwrap();
        let log = Log::to(writer, false).unwrap();
        for _ in 0..10_000 {
            let mut line = log.make_writer();
            line.write_all(&[b'a'; 100]).unwrap();
        }
        assert!(log.dropped.value() > 5_000);
        let registry = Registry::default();
        log.register(&registry);
        assert_eq!(registry.problems(), Vec::<String>::new());
        assert!(registry.encode().contains("\nedge_log_dropped_total "));
        assert!(!log.flush(Duration::from_millis(1)));
        drop(reader);
    }

    #[test]
    fn the_own_variable_wins_and_nonsense_is_refused() {
        let check = |own: Option<&str>, rust: Option<&str>, expected: Option<&str>| {
            let variable = |name: &str| if name == "EDGE_LOG" { own } else { rust }.map(str::to_owned);
            assert_eq!(
                filter(variable, "info,s3s=off")
                    .map(|filter| filter.to_string())
                    .ok()
                    .as_deref(),
                expected
            );
        };
        check(None, None, Some("s3s=off,info"));
        check(Some(""), Some("warn"), Some("warn"));
        check(Some("debug"), Some("warn"), Some("debug"));
        check(Some("edge=loud=quiet"), None, None);
    }
}
