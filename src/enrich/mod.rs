//! What the operator knows of the network, attached to records and findings.

mod allow;
mod aws_ranges;
mod operator;
mod threat_list;

pub use operator::{OperatorContext, OperatorError, ProtocolRule, Service};
pub use threat_list::{ThreatListError, ThreatListReport, read_threat_list};
