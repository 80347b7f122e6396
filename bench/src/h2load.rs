//! Load by h2load: how it is started, and what it says at its end.

use std::io;
use std::process::{Command, Stdio};

/// How the load looks.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Load {
    /// Connections at once
    #[arg(long, default_value_t = 50)]
    connections: u32,
    /// Requests at once on each connection, over HTTP/2
    #[arg(long, default_value_t = 10)]
    streams: u32,
    /// Seconds of each run
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// HTTP/1.1 instead of HTTP/2
    #[arg(long)]
    h1: bool,
    /// A field of each request, as in "Accept-Encoding: br"
    #[arg(long = "header", value_name = "FIELD")]
    headers: Vec<String>,
}

/// What came of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Done {
    /// Responses with a 2xx or 3xx status.
    pub(crate) succeeded: u64,
    /// Responses in each second.
    pub(crate) per_second: f64,
}

/// Why a run says nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Some requests failed: the figure would be of something else.
    #[error("of the requests to {url}, {succeeded} succeeded and {failed} did not")]
    Failed {
        url: String,
        succeeded: u64,
        failed: u64,
    },
    /// It is not there, or could not be started.
    #[error("cannot start h2load: {0} (Debian: nghttp2-client)")]
    Start(io::Error),
    /// It ended otherwise than expected.
    #[error("h2load says nothing that could be read:\n{0}")]
    Unread(String),
}

impl Load {
    /// Asks for `url` for as long as it was told to.
    pub(crate) fn run(&self, url: &str) -> Result<Done, Error> {
        let mut command = Command::new("h2load");
        command
            .arg(format!("--duration={}", self.seconds))
            .arg(format!("--clients={}", self.connections));
        command.arg(format!(
            "--max-concurrent-streams={}",
            if self.h1 { 1 } else { self.streams }
        ));
        command.args(self.h1.then_some("--h1"));
        command.args(self.headers.iter().flat_map(|header| ["--header", header]));
        let output = command
            .arg(url)
            .stdin(Stdio::null())
            .output()
            .map_err(Error::Start)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let summary = summary(&text)
            .ok_or_else(|| Error::Unread(format!("{text}{}", String::from_utf8_lossy(&output.stderr))))?;
        if summary.failed > 0 || summary.done.succeeded == 0 {
            let (succeeded, failed) = (summary.done.succeeded, summary.failed);
            return Err(Error::Failed {
                url: url.to_owned(),
                succeeded,
                failed,
            });
        }
        Ok(summary.done)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Summary {
    done: Done,
    failed: u64,
}

/// The two lines that matter: `finished in 5.00s, 1234.50 req/s, ..` and `requests: .. 6172 succeeded, 0 failed, ..`.
/// h2load counts as failed also what was not answered, and what was answered with 4xx or 5xx.
fn summary(text: &str) -> Option<Summary> {
    let finished = text.lines().find_map(|line| line.strip_prefix("finished in "))?;
    let requests = text.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let done = Done {
        succeeded: before(requests, " succeeded")?.parse().ok()?,
        per_second: before(finished, " req/s")?.parse().ok()?,
    };
    Some(Summary {
        done,
        failed: before(requests, " failed")?.parse().ok()?,
    })
}

/// The word before `unit`.
fn before<'a>(line: &'a str, unit: &str) -> Option<&'a str> {
    line.split(", ").find_map(|part| part.strip_suffix(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_run_is_read() {
        let text = "starting benchmark...\nspawning thread #0: 2 total client(s).\nTLS Protocol: TLSv1.3\n\n\
            finished in 5.00s, 15823.40 req/s, 158.92MB/s\n\
            requests: 79117 total, 79217 started, 79117 done, 79110 succeeded, 7 failed, 0 errored, 0 timeout\n\
            status codes: 79117 2xx, 0 3xx, 0 4xx, 0 5xx\n";
        let done = Done {
            succeeded: 79110,
            per_second: 15823.4,
        };
        assert_eq!(summary(text), Some(Summary { done, failed: 7 }));
    }

    #[test]
    fn anything_else_is_no_figure() {
        let check = |text: &str| assert_eq!(summary(text), None, "{text}");
        check("");
        check("finished in 5.00s, 1.00 req/s, 1B/s\n");
        check("finished in 5.00s, many req/s\nrequests: 1 total, 1 succeeded, 0 failed\n");
        check("requests: 1 total, 1 succeeded, 0 failed\n");
    }
}
