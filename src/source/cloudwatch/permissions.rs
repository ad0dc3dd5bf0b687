//! What reading log groups needs from IAM.

use crate::iam::{Home, Statement};

use super::settings::{CloudWatchSettings, LogGroup};

impl CloudWatchSettings {
    /// The actions that the source makes, on its log groups alone. Reading needs no permission for their
    /// encryption keys: the service decrypts with its own.
    #[must_use]
    pub fn statements(&self, home: &Home) -> Vec<Statement> {
        let arn = |group: &LogGroup| match group {
            LogGroup::Arn(arn) => format!("{arn}:*"),
            LogGroup::Name(name) => {
                home.arn("logs", self.access.region.as_deref(), &format!("log-group:{name}:*"))
            }
        };
        let groups = self.log_groups.iter().map(arn).collect();
        vec![Statement::new("ReadLogGroups", &["logs:FilterLogEvents"], groups)]
    }
}
