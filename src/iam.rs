//! What a configuration needs from AWS, as statements of an IAM policy.
//!
//! Every kind of source and sink says beside its settings which actions it makes on which resources; the
//! configuration puts them together ([`Policy::of`]). Where a name does not tell its region or account, and
//! nobody else does, a placeholder in capitals stands in the ARN.

use serde_json::{Map, Value, json};

/// The version of the policy language.
const LANGUAGE_VERSION: &str = "2012-10-17";

/// Stands in an ARN for a region that nobody names.
pub const REGION_PLACEHOLDER: &str = "REGION";
/// Stands in an ARN for an account that nobody names.
pub const ACCOUNT_PLACEHOLDER: &str = "ACCOUNT_ID";
/// Stands in an ARN for a bucket that nobody names.
pub const BUCKET_PLACEHOLDER: &str = "BUCKET";

/// Where resources are that are told by their names alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Home {
    /// A region such as `eu-central-1`.
    pub region: Option<String>,
    /// An account, 12 digits.
    pub account: Option<String>,
}

impl Home {
    /// The ARN of a resource by what its service, region and name are. `region` is the component's own, if it
    /// has one.
    #[must_use]
    pub fn arn(&self, service: &str, region: Option<&str>, resource: &str) -> String {
        let region = region.or(self.region.as_deref()).unwrap_or(REGION_PLACEHOLDER);
        let account = self.account.as_deref().unwrap_or(ACCOUNT_PLACEHOLDER);
        format!("arn:{}:{service}:{region}:{account}:{resource}", partition(region))
    }

    /// The ARN of a bucket, or of something in one; these have neither region nor account.
    #[must_use]
    pub fn bucket_arn(&self, region: Option<&str>, resource: &str) -> String {
        let region = region.or(self.region.as_deref()).unwrap_or(REGION_PLACEHOLDER);
        format!("arn:{}:s3:::{resource}", partition(region))
    }

    /// The host name of a service, as conditions name it.
    #[must_use]
    pub fn service_host(&self, service: &str, region: Option<&str>) -> String {
        let region = region.or(self.region.as_deref()).unwrap_or(REGION_PLACEHOLDER);
        let china = if region.starts_with("cn-") { ".cn" } else { "" };
        format!("{service}.{region}.amazonaws.com{china}")
    }
}

fn partition(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// Actions that are to be allowed on resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What it is for, in letters and digits.
    pub sid: &'static str,
    /// As `service:Action`.
    pub actions: &'static [&'static str],
    /// ARNs, or `*` alone where the service knows no resources.
    pub resources: Vec<String>,
    /// Under which conditions: operator, key, values.
    pub conditions: Vec<(&'static str, &'static str, Vec<String>)>,
}

impl Statement {
    /// A statement without conditions.
    #[must_use]
    pub const fn new(
        sid: &'static str,
        actions: &'static [&'static str],
        resources: Vec<String>,
    ) -> Self {
        Self { sid, actions, resources, conditions: Vec::new() }
    }

    /// Use of encryption keys through some services alone.
    #[must_use]
    pub fn of_keys(use_of: KeyUse, keys: Vec<String>, service_hosts: Vec<String>) -> Self {
        let (sid, actions): (&'static str, &'static [&'static str]) = match use_of {
            KeyUse::Read => ("Decrypt", &["kms:Decrypt"]),
            KeyUse::Write => ("Encrypt", &["kms:Decrypt", "kms:GenerateDataKey"]),
        };
        let conditions = vec![("StringEquals", "kms:ViaService", service_hosts)];
        Self { conditions, ..Self::new(sid, actions, keys) }
    }
}

/// What is done with what an encryption key protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// Reading it.
    Read,
    /// Writing it, in parts as well, which takes reading too.
    Write,
}

/// Statements in order, those for the same purpose put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy(Vec<Statement>);

impl Policy {
    /// The policy of all statements.
    #[must_use]
    pub fn of(statements: impl IntoIterator<Item = Statement>) -> Self {
        let mut joined: Vec<Statement> = Vec::new();
        for statement in statements {
            let is_alike = |other: &&mut Statement| {
                other.sid == statement.sid
                    && other.actions == statement.actions
                    && other.conditions == statement.conditions
            };
            match joined.iter_mut().find(is_alike) {
                Some(other) => other.resources.extend(statement.resources),
                None => joined.push(statement),
            }
        }
        for statement in &mut joined {
            statement.resources.sort_unstable();
            statement.resources.dedup();
            for (_, _, values) in &mut statement.conditions {
                values.sort_unstable();
                values.dedup();
            }
        }
        Self(joined)
    }

    /// Whether nothing of AWS is needed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The document, as IAM takes it.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut sids: Vec<String> = Vec::new();
        let statements: Vec<Value> = self
            .0
            .iter()
            .map(|statement| {
                // Ids are unique in a document.
                let same = |sid: &&String| {
                    sid.trim_end_matches(|c: char| c.is_ascii_digit()) == statement.sid
                };
                let sid = match sids.iter().filter(same).count() {
                    0 => statement.sid.to_owned(),
                    others => format!("{}{}", statement.sid, others + 1),
                };
                let json = statement_json(&sid, statement);
                sids.push(sid);
                json
            })
            .collect();
        json!({ "Version": LANGUAGE_VERSION, "Statement": statements })
    }

    /// The placeholders that are left to be filled in.
    #[must_use]
    pub fn placeholders(&self) -> Vec<&'static str> {
        let text = self.json().to_string();
        let forms = [
            (REGION_PLACEHOLDER, [":REGION:", ".REGION."]),
            (ACCOUNT_PLACEHOLDER, [":ACCOUNT_ID:", ":ACCOUNT_ID:"]),
            (BUCKET_PLACEHOLDER, [":::BUCKET\"", ":::BUCKET/"]),
        ];
        let left = forms.iter().filter(|(_, forms)| forms.iter().any(|form| text.contains(form)));
        left.map(|(placeholder, _)| *placeholder).collect()
    }
}

fn statement_json(sid: &str, statement: &Statement) -> Value {
    let mut json = Map::new();
    json.insert("Sid".to_owned(), json!(sid));
    json.insert("Effect".to_owned(), json!("Allow"));
    json.insert("Action".to_owned(), json!(statement.actions));
    json.insert("Resource".to_owned(), json!(statement.resources));
    if !statement.conditions.is_empty() {
        let mut operators: Map<String, Value> = Map::new();
        for (operator, key, values) in &statement.conditions {
            let keys = operators.entry(*operator).or_insert_with(|| json!({}));
            keys[*key] = json!(values);
        }
        json.insert("Condition".to_owned(), Value::Object(operators));
    }
    Value::Object(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: &[&str] = &["kinesis:GetRecords"];

    fn statement(sid: &'static str, resource: &str) -> Statement {
        Statement::new(sid, READ, vec![resource.to_owned()])
    }

    #[test]
    fn statements_for_one_purpose_become_one() {
        let policy =
            Policy::of([statement("Read", "b"), statement("Read", "a"), statement("Read", "b")]);
        assert_eq!(policy.json()["Statement"].as_array().map(Vec::len), Some(1));
        assert_eq!(policy.json()["Statement"][0]["Resource"], json!(["a", "b"]));
    }

    #[test]
    fn ids_are_unique() {
        let other = Statement::new("Read", &["kinesis:ListShards"], vec!["a".into()]);
        let json = Policy::of([statement("Read", "a"), other]).json();
        assert_eq!(json["Statement"][0]["Sid"], "Read");
        assert_eq!(json["Statement"][1]["Sid"], "Read2");
    }

    #[test]
    fn an_arn_says_all_that_is_known() {
        let check = |home: &Home, region: Option<&str>, expected: &str| {
            assert_eq!(home.arn("kinesis", region, "stream/s"), expected);
        };
        let nowhere = Home::default();
        check(&nowhere, None, "arn:aws:kinesis:REGION:ACCOUNT_ID:stream/s");
        check(
            &nowhere,
            Some("us-gov-west-1"),
            "arn:aws-us-gov:kinesis:us-gov-west-1:ACCOUNT_ID:stream/s",
        );
        let home = Home { region: Some("cn-north-1".into()), account: Some("123456789012".into()) };
        check(&home, None, "arn:aws-cn:kinesis:cn-north-1:123456789012:stream/s");
        assert_eq!(home.bucket_arn(None, "b/*"), "arn:aws-cn:s3:::b/*");
        assert_eq!(home.service_host("kinesis", None), "kinesis.cn-north-1.amazonaws.com.cn");
    }

    #[test]
    fn placeholders_are_told() {
        let arn = Home::default().arn("logs", Some("eu-west-1"), "log-group:a:*");
        let policy = Policy::of([Statement::new("Read", READ, vec![arn])]);
        assert_eq!(policy.placeholders(), [ACCOUNT_PLACEHOLDER]);
        assert!(Policy::of([statement("Read", "*")]).placeholders().is_empty());
    }
}
