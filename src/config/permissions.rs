//! What a configuration needs from IAM: each component says its own, and they are put together.

use crate::iam::{Home, Policy, Statement};

use super::plan::{Plan, SinkKind, SourceKind};

/// What the policy is to allow beside what the job itself does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// ARNs of keys with which streams, buckets or queues are encrypted.
    pub kms_keys: Vec<String>,
    /// Whether `doctor` is to find out the formats of flow logs.
    pub doctor: bool,
}

impl Plan {
    /// The least that the job needs, and no more.
    #[must_use]
    pub fn policy(&self, home: &Home, extras: &Extras) -> Policy {
        let sources = self.sources.iter().flat_map(|source| source_statements(&source.kind, home));
        let sinks = self.sinks.iter().flat_map(|sink| sink_statements(&sink.kind));
        let mut statements: Vec<Statement> = sources.chain(sinks).collect();
        let hosts = self.decrypting_services(home);
        if !extras.kms_keys.is_empty() && !hosts.is_empty() {
            statements.push(Statement::decrypt(extras.kms_keys.clone(), hosts));
        }
        if extras.doctor {
            // EC2 knows no resources for this action.
            let everything = vec!["*".to_owned()];
            statements.push(Statement::new(
                "DescribeFlowLogs",
                &["ec2:DescribeFlowLogs"],
                everything,
            ));
        }
        Policy::of(statements)
    }

    /// The services whose encrypted data the caller's own permission decrypts.
    fn decrypting_services(&self, home: &Home) -> Vec<String> {
        self.sources.iter().filter_map(|source| decrypting_service(&source.kind, home)).collect()
    }
}

#[cfg_attr(
    not(any(feature = "kinesis", feature = "s3", feature = "cloudwatch")),
    expect(unused_variables, reason = "no kind is left that is at home anywhere")
)]
fn source_statements(kind: &SourceKind, home: &Home) -> Vec<Statement> {
    match kind {
        SourceKind::File { .. } | SourceKind::Stdin | SourceKind::Demo(_) => Vec::new(),
        #[cfg(feature = "kinesis")]
        SourceKind::Kinesis(settings) => settings.statements(home),
        #[cfg(feature = "cloudwatch")]
        SourceKind::CloudWatch(settings) => settings.statements(home),
        #[cfg(feature = "s3")]
        SourceKind::S3(settings) => settings.statements(home),
    }
}

fn sink_statements(kind: &SinkKind) -> Vec<Statement> {
    match kind {
        SinkKind::Stdout | SinkKind::File { .. } => Vec::new(),
    }
}

#[cfg_attr(
    not(any(feature = "kinesis", feature = "s3")),
    expect(unused_variables, reason = "no kind is left that is at home anywhere")
)]
fn decrypting_service(kind: &SourceKind, home: &Home) -> Option<String> {
    match kind {
        SourceKind::File { .. } | SourceKind::Stdin | SourceKind::Demo(_) => None,
        #[cfg(feature = "kinesis")]
        SourceKind::Kinesis(settings) => {
            Some(home.service_host("kinesis", settings.access.region.as_deref()))
        }
        #[cfg(feature = "cloudwatch")]
        SourceKind::CloudWatch(_) => None,
        #[cfg(feature = "s3")]
        SourceKind::S3(settings) => {
            Some(home.service_host("s3", settings.access.region.as_deref()))
        }
    }
}
