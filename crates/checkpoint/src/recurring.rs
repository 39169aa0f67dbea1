//! When a failure that comes again and again is told: the first time, and then now and then with a count. **Pure.**

use std::error::Error;
use std::time::Duration;

/// Of one kind of failure.
#[derive(Debug, Clone, Default)]
pub struct Recurring {
    /// When it was told last, since any fixed moment.
    told: Option<Duration>,
    /// Failures since.
    untold: u64,
}

impl Recurring {
    /// Whether to tell this one, `now` being the time since any fixed moment: so many came since the last that was told.
    pub fn tell(&mut self, now: Duration, every: Duration) -> Option<u64> {
        if self.told.is_some_and(|told| now < told + every) {
            self.untold += 1;
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// An error with its causes, on one line.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_in_a_while_with_a_count() {
        let (mut recurring, every) = (Recurring::default(), Duration::from_secs(30));
        let at = Duration::from_secs;
        assert_eq!(recurring.tell(at(100), every), Some(0));
        assert_eq!(recurring.tell(at(101), every), None);
        assert_eq!(recurring.tell(at(129), every), None);
        assert_eq!(recurring.tell(at(130), every), Some(2));
        assert_eq!(recurring.tell(at(400), every), Some(0));
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the table does not answer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_are_told_too() {
        let inner = std::io::Error::other("refused");
        assert_eq!(causes(&Outer(inner)), "the table does not answer: refused");
    }
}
