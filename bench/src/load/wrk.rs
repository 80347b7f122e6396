//! Load by wrk: HTTP/1.1 with less work for the client than h2load has.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Done, Outcome};

/// A run of wrk.
#[derive(Clone, Debug)]
pub(crate) struct Wrk<'a> {
    pub(crate) connections: usize,
    pub(crate) seconds: f64,
    /// Settings of OpenSSL, by which the one cipher is chosen.
    pub(crate) openssl: &'a Path,
}

/// What makes OpenSSL offer the one cipher and the one key exchange that all have.
pub(crate) const OPENSSL: &str = "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n\
    [tls]\nMinProtocol = TLSv1.3\nCiphersuites = TLS_AES_128_GCM_SHA256\nGroups = X25519\n";

impl Wrk<'_> {
    /// Asks for `url` for as long as it was told to; for longer, where nothing was answered within that time: on a busy
    /// machine the handshakes alone can take it.
    pub(crate) fn run(&self, url: &str) -> Outcome<Done> {
        // wrk counts whole seconds only.
        let mut seconds = self.seconds.max(1.0).round();
        loop {
            let (text, said) = self.once(url, seconds)?;
            let done = summary(&text).ok_or_else(|| format!("wrk says\n{text}{said}"))?;
            if done.answered > 0 || seconds >= SECONDS_MAX {
                return Ok(done);
            }
            seconds *= 4.0;
        }
    }

    /// What one run says, to its standard output and beside it.
    fn once(&self, url: &str, seconds: f64) -> Outcome<(String, String)> {
        let output = Command::new("wrk")
            .args(["--threads", "1", "--timeout", "60s", "--connections"])
            .arg(self.connections.to_string())
            .args(["--duration", &format!("{seconds:.0}s")])
            .arg(url)
            .env("OPENSSL_CONF", self.openssl)
            .stdin(Stdio::null())
            .output()
            .map_err(|_| "wrk is missing; to install it: apt-get install wrk".to_owned())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(&output.stdout), text(&output.stderr)))
    }
}

/// A run that takes as long and brings nothing is no longer for want of time.
const SECONDS_MAX: f64 = 60.0;

/// `  6172 requests in 5.00s, 1.2MB read`, with neither `Non-2xx` nor `Socket errors` after it.
fn summary(text: &str) -> Option<Done> {
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return None;
    }
    let line = text.lines().find(|line| line.contains(" requests in "))?;
    let (count, rest) = line.trim().split_once(" requests in ")?;
    let seconds = rest.split_once(',')?.0;
    let seconds = match seconds.strip_suffix("ms") {
        Some(millis) => millis.parse::<f64>().ok()? / 1000.0,
        None => seconds.strip_suffix('s')?.parse().ok()?,
    };
    Some(Done {
        answered: count.parse().ok()?,
        seconds,
        latencies: None,
        lag: None,
        unchanged: 0,
        resumed: None,
        wire_bytes: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_run_is_read() {
        let text = "Running 1s test @ https://localhost\n  1 threads and 50 connections\n\
            \x20 30412 requests in 1.10s, 38.1MB read\nRequests/sec:  27645.1\n";
        let done = summary(text).unwrap();
        assert_eq!((done.answered, done.seconds), (30412, 1.1));
        let with = |more: &str| summary(&format!("{text}{more}")).is_none();
        assert!(with("  Non-2xx or 3xx responses: 3\n"));
        assert!(with("  Socket errors: connect 0, read 7, write 0, timeout 0\n"));
        assert_eq!(summary("  0 requests in 1.00s, 0B read\n").unwrap().answered, 0);
        assert!(summary("").is_none());
    }
}
