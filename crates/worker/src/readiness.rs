//! Whether this worker is ready: latched once everything it needs was good, until it drains.
//!
//! No lag and no lease is asked for: a spare worker is ready, and a table that fails later must not take the whole fleet
//! out of service.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

/// What must have been good once.
#[derive(Debug, Default)]
pub struct Readiness {
    prepared: AtomicBool,
    heard: AtomicBool,
}

/// Why a worker is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReady {
    /// The stream was not listed, or the tables were not read and written yet.
    Starting,
    /// Its first heartbeat is not confirmed yet.
    NoHeartbeat,
    /// It hands its leases over and ends.
    Draining,
}

impl NotReady {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Starting => {
                "starting: the stream and the tables were not all reached yet; the log says why"
            }
            Self::NoHeartbeat => "starting: the worker table was not written yet",
            Self::Draining => "draining",
        }
    }
}

impl Readiness {
    /// The stream was listed, and the tables were read and written.
    pub fn prepared(&self) {
        self.prepared.store(true, Ordering::Release);
    }

    /// A heartbeat was confirmed.
    pub fn heartbeat(&self) {
        self.heard.store(true, Ordering::Release);
    }

    /// Whether the worker is ready, or why not.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self, drain: &CancellationToken) -> Result<(), NotReady> {
        if drain.is_cancelled() {
            return Err(NotReady::Draining);
        }
        if !self.prepared.load(Ordering::Acquire) {
            return Err(NotReady::Starting);
        }
        if !self.heard.load(Ordering::Acquire) {
            return Err(NotReady::NoHeartbeat);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_ready_from_its_first_heartbeat_until_it_drains() {
        let (ready, drain) = (Readiness::default(), CancellationToken::new());
        assert_eq!(ready.check(&drain), Err(NotReady::Starting));
        ready.prepared();
        assert_eq!(ready.check(&drain), Err(NotReady::NoHeartbeat));
        ready.heartbeat();
        assert_eq!(ready.check(&drain), Ok(()));
        drain.cancel();
        assert_eq!(ready.check(&drain), Err(NotReady::Draining));
    }
}
