//! What a CloudWatch Logs source counted: added to by its tasks, read by whoever reports.

use std::sync::Arc;

use crate::metrics::{Count, Intake};

/// Counts of one source since it was made. Each is exact; together they are not one moment.
#[derive(Debug, Default)]
pub struct CloudWatchCounters {
    /// Events handed on.
    pub events: Count,
    /// Events that came again and were left out.
    pub repeated: Count,
    /// Calls that were answered.
    pub answers: Count,
    /// Calls that were refused because of a rate limit.
    pub throttled: Count,
    /// Calls that failed for another passing reason and were made again.
    pub retried: Count,
    /// Tokens of pages that were refused; their range was asked for again.
    pub tokens_replaced: Count,
    /// Times that more events were to be remembered than can be: later ones may be missed or, after a
    /// restart, come again.
    pub overfull: Count,
}

impl CloudWatchCounters {
    /// All of it, as reports take it.
    #[must_use]
    pub fn intake(&self, source: &Arc<str>, inputs: u64) -> Intake {
        Intake {
            source: Arc::clone(source),
            inputs,
            behind: Vec::new(),
            totals: vec![
                ("events", self.events.get()),
                ("repeated", self.repeated.get()),
                ("answers", self.answers.get()),
            ],
            troubles: vec![
                ("throttled", self.throttled.get()),
                ("retried", self.retried.get()),
                ("tokens_replaced", self.tokens_replaced.get()),
                ("overfull", self.overfull.get()),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told() {
        let counters = CloudWatchCounters::default();
        counters.events.add(3);
        counters.throttled.add(1);
        let intake = counters.intake(&"groups".into(), 2);
        assert_eq!((intake.inputs, intake.totals[0]), (2, ("events", 3)));
        assert_eq!(intake.to_string(), "groups 2 inputs, 1 throttled");
    }
}
