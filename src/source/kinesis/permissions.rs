//! What reading a stream needs from IAM.

use crate::iam::{Home, Statement};

use super::settings::{KinesisSettings, StreamAddress};

/// The calls of `discovery` and `shard`.
const POLLING: &[&str] = &["kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards"];

impl KinesisSettings {
    /// The actions that the source makes, on its stream alone.
    #[must_use]
    pub fn statements(&self, home: &Home) -> Vec<Statement> {
        let arn = match &self.stream {
            StreamAddress::Arn(arn) => arn.clone(),
            StreamAddress::Name(name) => {
                home.arn("kinesis", self.access.region.as_deref(), &format!("stream/{name}"))
            }
        };
        vec![Statement::new("ReadStreams", POLLING, vec![arn])]
    }
}
