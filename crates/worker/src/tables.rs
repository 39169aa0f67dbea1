//! The port through which a worker makes sure of its tables before it works on them.

use async_trait::async_trait;
use sluicegate_checkpoint::Retry;

/// Makes sure that the tables of a worker are there and fit.
#[async_trait]
pub trait TableCheck: Send + Sync + 'static {
    /// Returns once each table can be used; creates those that are missing, if that was asked for.
    ///
    /// *Repeating it*: safe. *Cancelling it*: safe.
    ///
    /// # Errors
    /// See [`TablesUnfit`].
    async fn check(&self) -> Result<(), TablesUnfit>;
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why the tables cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum TablesUnfit {
    /// It may pass: no answer, throttling, a table that is being created.
    #[error(transparent)]
    NotNow(Cause),
    /// It will not pass by itself.
    #[error(transparent)]
    Never(Cause),
}

impl TablesUnfit {
    /// What an adapter found, by whether it may pass.
    pub fn new(retry: Retry, cause: impl Into<Cause>) -> Self {
        match retry {
            Retry::Never => Self::Never(cause.into()),
            Retry::Backoff | Retry::After(_) => Self::NotNow(cause.into()),
        }
    }

    /// Whether it is looked at again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotNow(_) => Retry::Backoff,
            Self::Never(_) => Retry::Never,
        }
    }
}
