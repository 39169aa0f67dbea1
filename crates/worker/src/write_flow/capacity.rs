//! Asks the table again and again what it gives, while that is the fleet's write budget.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_checkpoint::Retry;
use sluicegate_checkpoint::recurring::{Recurring, causes};
use sluicegate_lease::Clock;
use sluicegate_sink::store::CapacitySource;
use tokio_util::sync::CancellationToken;

use super::WriteFlow;

/// Time between two questions. A table's capacity changes within minutes (DynamoDB developer guide, UpdateTable), and its limit of
/// calls that only read a table's description is in the thousands a second for an account.
const ASKED_EVERY: Duration = Duration::from_secs(10);
/// How often it is told that the table may not be asked.
const TELL_EVERY: Duration = Duration::from_secs(3_600);

/// Asks until it is stopped.
pub(crate) async fn watch(
    source: Arc<dyn CapacitySource>,
    flow: Arc<WriteFlow>,
    clock: Clock,
    stop: CancellationToken,
) {
    let (begun, mut refused) = (clock.now(), Recurring::default());
    loop {
        let answer = tokio::select! { biased;
            () = stop.cancelled() => return,
            answer = source.capacity() => answer,
        };
        match answer {
            Ok(capacity) => flow.on_capacity(capacity),
            // What was known stands: the table is out of reach, or will answer soon.
            Err(error) if error.retry() != Retry::Never => {
                tracing::debug!(error = causes(&error), "the table did not say what it gives");
            }
            Err(error) => {
                if refused.tell(clock.now() - begun, TELL_EVERY).is_some() {
                    tracing::warn!(
                        error = causes(&error),
                        "the table may not be asked what it gives, so there is no write budget: allow \
                         dynamodb:DescribeTable, or set write_budget_wcu"
                    );
                }
                flow.on_capacity(None);
            }
        }
        tokio::select! { biased;
            () = stop.cancelled() => return,
            () = clock.sleep_until(clock.now() + ASKED_EVERY) => {}
        }
    }
}
