//! Load: by h2load and wrk where they serve, by our own generator where they do not. Towards loopback only, and bounded:
//! each run ends after its time or its number of requests.

mod ask;
mod client;
mod closed;
mod h2load;
mod mix;
mod open;
mod wrk;

pub(crate) use ask::{Ask, Judge, Seen};
pub(crate) use client::{Connection, Door, Groups, HOST, Protocol};
pub(crate) use closed::{Closed, Fresh};
pub(crate) use h2load::H2load;
pub(crate) use mix::{BROWSER, Mix, Repeat, Workload, Zipf};
pub(crate) use open::Open;
pub(crate) use wrk::{OPENSSL, Wrk};

use std::time::Duration;

use hdrhistogram::Histogram;

/// What goes wrong within a run; the caller knows with which server.
pub(crate) type Outcome<T> = Result<T, String>;

/// Starts a task of the load generator. Its end is the end of the runtime that the run has for itself.
#[expect(
    clippy::disallowed_methods,
    reason = "the generator's tasks end with the runtime of their run; there is no drain"
)]
pub(crate) fn start<F>(task: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(task)
}

/// FNV-1a, eight bytes at a time: tells bodies apart that nobody made to deceive.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| {
        (hash ^ u64::from_le_bytes(*word))
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(23)
    });
    rest.iter().fold(hash ^ bytes.len() as u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What came of a run.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    /// Answers that were as expected.
    pub(crate) answered: u64,
    /// How long the run took.
    pub(crate) seconds: f64,
    /// From when a request was due to the last byte of its answer, in microseconds.
    pub(crate) latencies: Option<Histogram<u64>>,
    /// From when a request was due to when it was sent: what the generator itself is late, in microseconds.
    pub(crate) lag: Option<Histogram<u64>>,
    /// Answers that said "not modified".
    pub(crate) unchanged: u64,
    /// Handshakes that were resumed, where they were to be.
    pub(crate) resumed: Option<u64>,
    /// Bytes of bodies, as they were sent.
    pub(crate) wire_bytes: u64,
}

impl Done {
    /// Answers in each second.
    pub(crate) fn per_second(&self) -> f64 {
        self.answered as f64 / self.seconds.max(1e-9)
    }

    /// The latency that this share of the answers had at most, in milliseconds.
    pub(crate) fn millis(&self, quantile: f64) -> Option<f64> {
        millis(self.latencies.as_ref(), quantile)
    }

    /// The lag that this share of the requests had at most, in milliseconds.
    pub(crate) fn lag_millis(&self, quantile: f64) -> Option<f64> {
        millis(self.lag.as_ref(), quantile)
    }
}

/// A histogram of microseconds, up to a minute, with three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "the bounds are constants, and good ones")]
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("good bounds")
}

/// Adds a duration to a histogram; what is longer than a minute counts as a minute.
pub(crate) fn record(histogram: &mut Histogram<u64>, duration: Duration) {
    histogram.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
}

fn millis(histogram: Option<&Histogram<u64>>, quantile: f64) -> Option<f64> {
    let histogram = histogram.filter(|histogram| !histogram.is_empty())?;
    Some(histogram.value_at_quantile(quantile) as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_lengths_and_places_apart() {
        let all = [
            &b""[..],
            b"\0",
            b"\0\0",
            b"12345678",
            b"12345679",
            b"21345678",
            b"123456781",
            b"1234567812345678",
        ];
        for (at, one) in all.iter().enumerate() {
            for other in all.iter().skip(at + 1) {
                assert_ne!(fingerprint(one), fingerprint(other), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn quantiles_are_in_milliseconds() {
        let mut latencies = histogram();
        (1..=1000).for_each(|millis| record(&mut latencies, Duration::from_millis(millis)));
        record(&mut latencies, Duration::from_secs(3600));
        let about = |quantile, expected: f64| {
            let millis = millis(Some(&latencies), quantile).unwrap();
            assert!((millis / expected - 1.0).abs() < 0.01, "{quantile}: {millis}");
        };
        about(0.5, 500.0);
        about(0.99, 990.0);
        about(1.0, 60_000.0);
        assert_eq!(millis(Some(&histogram()), 0.5), None);
    }
}
