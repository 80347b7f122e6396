//! What an exchange did: one value for log and metrics.

use std::fmt;

/// How the sending of a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every byte was handed to the connection.
    Whole,
    /// The client went away, or took nothing for too long.
    ClientGone,
    /// The body broke on our side.
    Broken,
}

type Written = Box<dyn FnOnce(u64, End) + Send>;

/// What is written down when an exchange has ended.
#[derive(Default)]
pub struct Record(Option<Written>);

impl Record {
    /// A record that hands what it was told to `written`.
    pub fn observed(written: impl FnOnce(u64, End) + Send + 'static) -> Box<Self> {
        Box::new(Self(Some(Box::new(written))))
    }

    #[expect(clippy::boxed_local, reason = "a record travels in its box")]
    /// The exchange has ended: `sent` bytes of content were handed to the connection.
    pub fn finish(self: Box<Self>, sent: u64, end: End) {
        if let Some(written) = self.0 {
            written(sent, end);
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Record(..)")
    }
}
