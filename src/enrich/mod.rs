//! What the operator knows of the network, attached to records and findings.

mod allow;
mod aws_ranges;
mod operator;

pub use operator::{OperatorContext, OperatorError, Service};
