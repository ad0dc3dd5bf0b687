//! Sequence numbers: decimal texts that order as integers of any length.
//!
//! Kinesis writes them with up to 56 digits and more, some compatible servers with leading zeros or
//! with three digits; none fits `u128` for sure, so they are compared digit by digit.

use std::cmp::Ordering;
use std::sync::Arc;

/// The sequence number of a record within its shard.
#[derive(Clone, Debug)]
pub(super) struct SequenceNumber(pub(super) Arc<str>);

impl SequenceNumber {
    fn significant_digits(&self) -> &str {
        self.0.trim_start_matches('0')
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        let (left, right) = (self.significant_digits(), other.significant_digits());
        left.len().cmp(&right.len()).then_with(|| left.cmp(right))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Equal as integers: `007` is `7`.
impl PartialEq for SequenceNumber {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for SequenceNumber {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(left: &str, right: &str, expected: Ordering) {
        let number = |text: &str| SequenceNumber(text.into());
        assert_eq!(number(left).cmp(&number(right)), expected, "{left} {right}");
        assert_eq!(number(right).cmp(&number(left)), expected.reverse(), "{right} {left}");
        assert_eq!(number(left) == number(right), expected == Ordering::Equal);
    }

    #[test]
    fn length_counts_before_digits() {
        check("9", "10", Ordering::Less);
        check("0009", "10", Ordering::Less);
        check("007", "7", Ordering::Equal);
        check("0", "", Ordering::Equal);
        check(
            "49590338271490256608559692538361571095921575989136588898",
            "49590338271490256608559692540925702759324208523137515618",
            Ordering::Less,
        );
    }

    proptest! {
        #[test]
        fn order_is_that_of_integers(left: u128, right: u128, zeros in 0_usize..20) {
            let padded = format!("{}{right}", "0".repeat(zeros));
            check(&left.to_string(), &padded, left.cmp(&right));
        }
    }
}
