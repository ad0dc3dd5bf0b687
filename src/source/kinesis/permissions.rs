//! What reading a stream needs from IAM.

use crate::iam::{Home, Statement};

use super::settings::{ConsumerAddress, KinesisSettings, ReadMode, StreamAddress};

/// The calls of `discovery` and `polling`.
const POLLING: &[&str] = &["kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards"];
/// The calls of `discovery`, where consumers are pushed to.
const LISTING: &[&str] = &["kinesis:ListShards"];
/// A stream that is named has its ARN looked up: consumers are found by that.
const NAMING: &[&str] = &["kinesis:DescribeStreamSummary"];
/// The calls of `subscription` and `consumer`; the service checks some at the stream, some at the consumer.
const SUBSCRIBING: &[&str] = &["kinesis:DescribeStreamConsumer", "kinesis:SubscribeToShard"];
const REGISTERING: &[&str] = &["kinesis:RegisterStreamConsumer"];
const DEREGISTERING: &[&str] = &["kinesis:DeregisterStreamConsumer"];

/// What polling makes beyond the calls of a consumer that is pushed to.
const LOOKING: &[&str] = &["kinesis:GetRecords", "kinesis:GetShardIterator"];

impl KinesisSettings {
    /// The stream's ARN, as far as it is known.
    fn stream_arn(&self, home: &Home) -> String {
        match &self.stream {
            StreamAddress::Arn(arn) => arn.clone(),
            StreamAddress::Name(name) => {
                home.arn("kinesis", self.access.region.as_deref(), &format!("stream/{name}"))
            }
        }
    }

    /// The actions that a look at the stream makes beyond those of the source: it polls, because a consumer
    /// has one subscription to a shard.
    #[must_use]
    pub fn statements_of_a_look(&self, home: &Home) -> Vec<Statement> {
        match &self.mode {
            ReadMode::Polling => Vec::new(),
            ReadMode::FanOut(_) => {
                vec![Statement::new("LookAtStreams", LOOKING, vec![self.stream_arn(home)])]
            }
        }
    }

    /// The actions that the source makes, on its stream and its consumer alone.
    #[must_use]
    pub fn statements(&self, home: &Home) -> Vec<Statement> {
        let arn = self.stream_arn(home);
        let ReadMode::FanOut(fan_out) = &self.mode else {
            return vec![Statement::new("ReadStreams", POLLING, vec![arn])];
        };
        let consumer = match &fan_out.consumer {
            // What follows the name is the moment at which it was registered.
            ConsumerAddress::Name(name) => format!("{arn}/consumer/{name}:*"),
            ConsumerAddress::Arn(consumer) => consumer.clone(),
        };
        let both = || vec![arn.clone(), consumer.clone()];
        let mut statements = vec![
            Statement::new("ListShards", LISTING, vec![arn.clone()]),
            Statement::new("Subscribe", SUBSCRIBING, both()),
        ];
        if matches!(fan_out.consumer, ConsumerAddress::Name(_)) {
            statements.push(Statement::new("RegisterConsumers", REGISTERING, both()));
            if matches!(self.stream, StreamAddress::Name(_)) {
                statements.push(Statement::new("FindStreams", NAMING, vec![arn.clone()]));
            }
        }
        if fan_out.deregister {
            statements.push(Statement::new("DeregisterConsumers", DEREGISTERING, both()));
        }
        statements
    }
}
