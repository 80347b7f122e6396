//! Signals of the operating system, as what they mean.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGQUIT, SIGINT, by name: stop.
    Stop(&'static str),
    /// SIGHUP: read configuration and certificates again.
    Reload,
    /// SIGUSR1: open the log files again.
    ReopenLogs,
    /// SIGUSR2: hand over to a new binary.
    Upgrade,
}

/// The signals of this process. From its creation on none of them has its default effect.
#[derive(Debug)]
pub struct Signals {
    terminate: Stream,
    quit: Stream,
    interrupt: Stream,
    hangup: Stream,
    user1: Stream,
    user2: Stream,
}

impl Signals {
    /// Starts to listen, on the runtime of the caller.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next signal. May be dropped while it waits: no signal is lost.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.quit.recv() => Signal::Stop("SIGQUIT"),
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.user1.recv() => Signal::ReopenLogs,
            _ = self.user2.recv() => Signal::Upgrade,
        }
    }
}
