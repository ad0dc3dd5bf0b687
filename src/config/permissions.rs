//! What a configuration needs from IAM: each component says its own, and they are put together.

use crate::iam::{Home, KeyUse, Policy, Statement};

use super::plan::{Plan, SinkKind, SourceKind};

/// What the policy is to allow beside what the job itself does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// ARNs of keys with which streams, buckets or queues are encrypted.
    pub kms_keys: Vec<String>,
    /// Whether `doctor` is to look at the sources, and to find out the formats of flow logs.
    pub doctor: bool,
}

impl Plan {
    /// The least that the job needs, and no more.
    #[must_use]
    pub fn policy(&self, home: &Home, extras: &Extras) -> Policy {
        let kinds = || self.sources.iter().map(|source| &source.kind);
        let mut statements: Vec<Statement> =
            kinds().flat_map(|kind| source_statements(kind, home)).collect();
        statements.extend(self.sinks.iter().flat_map(|sink| sink_statements(&sink.kind)));
        let remote = self.engine.checkpoint.remote.as_ref();
        statements.extend(remote.iter().flat_map(|remote| remote.statements(home)));
        if extras.doctor {
            statements.extend(kinds().flat_map(|kind| statements_of_a_look(kind, home)));
            // EC2 knows no resources for this action.
            let everything = vec!["*".to_owned()];
            let describe = &["ec2:DescribeFlowLogs"];
            statements.push(Statement::new("DescribeFlowLogs", describe, everything));
        }
        if !extras.kms_keys.is_empty() {
            let read = kinds().flat_map(|kind| decrypting_services(kind, home)).collect();
            let written = remote.iter().map(|remote| remote.service_host(home)).collect();
            for (key_use, hosts) in [(KeyUse::Read, read), (KeyUse::Write, written)] {
                let hosts: Vec<String> = hosts;
                if !hosts.is_empty() {
                    statements.push(Statement::of_keys(key_use, extras.kms_keys.clone(), hosts));
                }
            }
        }
        Policy::of(statements)
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
        // It is called and calls nobody.
        #[cfg(feature = "firehose")]
        SourceKind::Firehose(_) => Vec::new(),
    }
}

fn sink_statements(kind: &SinkKind) -> Vec<Statement> {
    match kind {
        SinkKind::Stdout | SinkKind::File { .. } => Vec::new(),
    }
}

/// What `doctor` does beyond what the job does.
#[cfg_attr(
    not(feature = "kinesis"),
    expect(unused_variables, reason = "no kind is left at which a look is anything else")
)]
fn statements_of_a_look(kind: &SourceKind, home: &Home) -> Vec<Statement> {
    #[cfg(feature = "kinesis")]
    if let SourceKind::Kinesis(settings) = kind {
        return settings.statements_of_a_look(home);
    }
    Vec::new()
}

/// The services whose encrypted data a source reads with the caller's own permission. CloudWatch Logs
/// decrypts with its own.
#[cfg_attr(
    not(any(feature = "kinesis", feature = "s3")),
    expect(unused_variables, reason = "no kind is left that is at home anywhere")
)]
fn decrypting_services(kind: &SourceKind, home: &Home) -> Vec<String> {
    #[cfg(feature = "kinesis")]
    if let SourceKind::Kinesis(settings) = kind {
        return vec![home.service_host("kinesis", settings.access.region.as_deref())];
    }
    #[cfg(feature = "s3")]
    if let SourceKind::S3(settings) = kind {
        return settings.decrypting_services(home);
    }
    Vec::new()
}
