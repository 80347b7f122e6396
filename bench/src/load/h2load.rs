//! Load by h2load: how it is started, and what it says at its end.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::{Done, Outcome, Protocol};

/// A run of h2load.
#[derive(Clone, Debug)]
pub(crate) struct H2load<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) connections: usize,
    /// Requests at once on each connection, over HTTP/2.
    pub(crate) streams: usize,
    /// Requests in all. By time h2load would end too, but it waits for ever for a connection that comes too late.
    pub(crate) requests: u64,
    /// The codings that are accepted.
    pub(crate) accepts: Option<&'a str>,
    /// The length that every body has.
    pub(crate) body_bytes: Option<u64>,
}

impl H2load<'_> {
    /// Requests that take about so many seconds; a few, when that is less than one.
    pub(crate) fn requests_for(&self, seconds: f64, url: &str) -> Outcome<u64> {
        if seconds < 1.0 {
            return Ok(2 * self.requests_min());
        }
        let few = Self {
            requests: 2 * self.requests_min(),
            ..self.clone()
        };
        let done = few.run(url)?;
        Ok(((done.per_second() * seconds) as u64).max(self.requests_min()))
    }

    /// Asks for `url` as often as it was told to.
    pub(crate) fn run(&self, url: &str) -> Outcome<Done> {
        let mut command = Command::new("timeout");
        command
            .args([RUN_MAX, "h2load", "--connection-inactivity-timeout=20"])
            .arg(format!("--requests={}", self.requests))
            .arg(format!("--clients={}", self.connections))
            .arg(format!("--connect-to={}", self.address))
            .args(["--tls13-ciphers=TLS_AES_128_GCM_SHA256", "--groups=X25519"]);
        match self.protocol {
            Protocol::H1 => command.args(["--h1", "--max-concurrent-streams=1"]),
            Protocol::H2 => command.arg(format!("--max-concurrent-streams={}", self.streams)),
        };
        if let Some(accepts) = self.accepts {
            command.args(["--header", &format!("accept-encoding: {accepts}")]);
        }
        let output = command
            .arg(url)
            .stdin(Stdio::null())
            .output()
            .map_err(|_| "h2load is missing; to install it: apt-get install nghttp2-client".to_owned())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let summary = summary(&text)
            .ok_or_else(|| format!("h2load says\n{text}{}", String::from_utf8_lossy(&output.stderr)))?;
        summary.judged(self.requests, self.body_bytes)
    }

    /// As many as are under way at once.
    fn requests_min(&self) -> u64 {
        (self.connections * self.streams) as u64
    }
}

/// Seconds after which a run is given up.
const RUN_MAX: &str = "120";

#[derive(Clone, Copy, Debug, PartialEq)]
struct Summary {
    succeeded: u64,
    failed: u64,
    seconds: f64,
    data_bytes: u64,
    redirected: u64,
}

impl Summary {
    fn judged(self, requests: u64, body_bytes: Option<u64>) -> Outcome<Done> {
        if self.failed > 0 || self.succeeded < requests || self.redirected > 0 {
            return Err(format!(
                "of {requests} requests {} succeeded, {} failed, {} were answered with 3xx",
                self.succeeded, self.failed, self.redirected
            ));
        }
        if let Some(each) = body_bytes
            && self.data_bytes != each.saturating_mul(requests)
        {
            return Err(format!(
                "{} bytes came, and {requests} answers have {each} each",
                self.data_bytes
            ));
        }
        Ok(Done {
            answered: self.succeeded,
            seconds: self.seconds,
            latencies: None,
            lag: None,
            unchanged: 0,
            resumed: None,
            wire_bytes: self.data_bytes,
        })
    }
}

/// The lines that matter: `finished in 5.00s, 1234.50 req/s, ..`, `requests: .. 6172 succeeded, 0 failed, ..`,
/// `status codes: ..` and `traffic: 6.3MB (6600123) total, .. (6320128) data`.
/// h2load counts as failed also what was not answered, and what was answered with 4xx or 5xx.
fn summary(text: &str) -> Option<Summary> {
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    let (finished, requests) = (line("finished in ")?, line("requests: ")?);
    let traffic = line("traffic: ")?;
    let data = traffic.split(", ").find(|part| part.ends_with("data"))?;
    Some(Summary {
        succeeded: before(requests, " succeeded")?.parse().ok()?,
        failed: before(requests, " failed")?.parse().ok()?,
        seconds: seconds(finished.split_once(',')?.0)?,
        data_bytes: data.split_once('(')?.1.split_once(')')?.0.parse().ok()?,
        redirected: before(line("status codes: ")?, " 3xx")?.parse().ok()?,
    })
}

/// The word before `unit`.
fn before<'a>(line: &'a str, unit: &str) -> Option<&'a str> {
    line.split(", ").find_map(|part| part.strip_suffix(unit))
}

/// `1.50s`, `250.10ms` or `900us`.
fn seconds(text: &str) -> Option<f64> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    units
        .iter()
        .find_map(|(unit, each)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * each))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "starting benchmark...\nspawning thread #0: 2 total client(s).\nTLS Protocol: TLSv1.3\n\n\
        finished in 5.00s, 15823.40 req/s, 158.92MB/s\n\
        requests: 79117 total, 79217 started, 79117 done, 79110 succeeded, 7 failed, 0 errored, 0 timeout\n\
        status codes: 79117 2xx, 0 3xx, 0 4xx, 0 5xx\n\
        traffic: 78.10MB (81893120) total, 1.20MB (1258291) headers (space savings 95.00%), 77.26MB (81008640) data\n";

    #[test]
    fn the_end_of_a_run_is_read() {
        let expected = Summary {
            succeeded: 79110,
            failed: 7,
            seconds: 5.0,
            data_bytes: 81_008_640,
            redirected: 0,
        };
        assert_eq!(summary(TEXT), Some(expected));
        assert_eq!(seconds("250.10ms"), Some(0.2501));
        assert_eq!(seconds("5 minutes"), None);
    }

    #[test]
    fn anything_else_is_no_figure() {
        let check = |text: &str| assert_eq!(summary(text), None, "{text}");
        check("");
        check("finished in 5.00s, 1.00 req/s, 1B/s\n");
        check(&TEXT.replace("79110 succeeded", "many succeeded"));
        check(&TEXT.replace("(81008640) data", "data"));
    }

    #[test]
    fn a_run_with_failures_or_missing_bytes_is_no_figure() {
        let check = |text: &str, body_bytes, good: bool| {
            let judged = summary(text).unwrap().judged(79110, body_bytes);
            assert_eq!(judged.is_ok(), good, "{judged:?}");
        };
        let good = TEXT.replace("7 failed", "0 failed");
        check(TEXT, None, false);
        check(&good, None, true);
        check(&good, Some(1024), true);
        check(&good, Some(1025), false);
        check(&good, Some(1023), false);
        check(&good.replace("0 3xx", "1 3xx"), None, false);
        check(&good.replace("79110 succeeded", "79109 succeeded"), None, false);
    }
}
